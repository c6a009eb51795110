import { PassThrough } from 'node:stream'
import t from 'tap'
import type { Context } from '../lib/cli/command.js'
import { confirm } from '../lib/cli/confirm.js'

function ask(isTTY: boolean) {
  const stdin = Object.assign(new PassThrough(), { isTTY })
  const stderr = new PassThrough()
  const abort = new AbortController()
  const client = { signal: abort.signal, host: 'example.com:3000' }
  const context = { stdin, stderr, client } as unknown as Context
  const asked = confirm(context, 'Restoring x overwrites y.')
  return { stdin, stderr, abort, asked, shown: () => String(stderr.read()) }
}

t.test('only the requested answer confirms', async (t) => {
  const good = ask(true)
  good.stdin.write('  example.com:3000 \n')
  await good.asked
  t.match(good.shown(), /Restoring x overwrites y\.\nType example\.com:3000 to go on: /)

  for (const answer of ['\n', 'y\n', 'yes\n', 'example.com\n']) {
    const { stdin, asked } = ask(true)
    stdin.write(answer)
    await t.rejects(
      asked,
      { exitCode: 1, message: 'not confirmed: nothing was restored' },
      JSON.stringify(answer)
    )
  }
})

t.test('the end of the input does not confirm, nor does an interrupt', async (t) => {
  const ended = ask(true)
  ended.stdin.end()
  await t.rejects(ended.asked, { exitCode: 1, message: /not confirmed/ })
  const interrupted = ask(true)
  interrupted.abort.abort()
  await t.rejects(interrupted.asked, { name: 'AbortError' })
})

t.test('without a terminal the client does not ask', async (t) => {
  const { stdin, asked, shown } = ask(false)
  stdin.write('example.com:3000\n')
  await t.rejects(asked, { exitCode: 2, message: /--yes/ })
  t.equal(shown(), 'null')
})
