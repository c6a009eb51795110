import { once } from 'node:events'
import { createServer as createHttpServer } from 'node:http'
import { createServer, type Server } from 'node:net'
import t from 'tap'
import { connectionError } from '../lib/cli/connection-errors.js'
import { CliError, fileError, ReplyError } from '../lib/cli/errors.js'
import { parseOptions } from '../lib/cli/parse-options.js'
import { buildCli } from './helpers/cli.js'
import { listen } from './helpers/listen.js'

const cli = buildCli(t)
const ID = '03_ibp_db_backup_1592922855871'
/** What Node.js, its parsers and undici say. */
const OF_A_LIBRARY = /\b(E[A-Z]{4,}|ERR_\w+|UND_ERR\w*|HPE_\w+|Parse Error|errno|at \S+:\d+:\d+)\b/

const withCode = (code: string) => Object.assign(new Error(`${code}: the words of a library`), { code })

t.test('a file that cannot be used is named, with the reason', async (t) => {
  for (const [code, reason] of Object.entries({
    ENOENT: 'there is no such file or directory',
    EACCES: 'permission denied',
    EISDIR: 'it is a directory',
    ENOSPC: 'no space is left on the disk',
    EROFS: 'the file system is read-only'
  })) {
    const told = fileError(withCode(code), 'a/b.json') as CliError
    t.equal(told.message, `a/b.json cannot be used: ${reason}`)
    t.equal(told.exitCode, 1)
  }
  t.equal(fileError(withCode('EXDEV'), 'a').message, 'a cannot be used: the system says EXDEV')
  const own = new CliError('own')
  t.equal(fileError(own, 'a'), own, 'an error of the command stays')
  const cwd = t.testdir({ directory: {} })
  const env = { BACKUPS_URL: 'http://127.0.0.1:9', BACKUPS_TOKEN: 'x' }
  for (const args of [
    ['restore', '--file', 'missing.json', '--yes'],
    ['restore', '--file', 'missing.json.gz', '--yes'],
    ['restore', '--file', 'directory', '--yes'],
    ['append', ID, 'name', 'missing.json'],
    ['append', ID, 'name', 'directory'],
    ['get', ID, '-o', 'missing/backup.json'],
    ['get', ID, '-o', 'directory/a/backup.json']
  ]) {
    const { code, stderr } = await cli(args, { cwd, env })
    t.equal(code, 1, args.join(' '))
    t.match(stderr, /^(missing|directory)\S* (cannot be used: |is not a file)/)
    t.notMatch(stderr, OF_A_LIBRARY)
  }
})

t.test('a connection that fails is told in plain words', async (t) => {
  const garbage: Server = createServer((socket) => socket.end('SSH-2.0-OpenSSH_9.2\r\n'))
  garbage.listen(0, '127.0.0.1')
  t.teardown(() => garbage.close())
  const closing = createHttpServer(({ socket }) => socket.destroy())
  const plain = await listen(t, createHttpServer())
  if (!garbage.listening) await once(garbage, 'listening')
  const { port } = garbage.address() as { port: number }
  for (const [url, reason] of Object.entries({
    'http://127.0.0.1:9': /no server answers at 127\.0\.0\.1:9; does it run, and is BACKUPS_URL right\?/,
    [`http://127.0.0.1:${port}`]: /does not speak http; is BACKUPS_URL right\?/,
    [plain.replace('http:', 'https:')]: /does not speak https; is BACKUPS_URL right\?/,
    [await listen(t, closing)]: /has closed the connection/
  })) {
    const { code, stderr } = await cli(['list', '--retries', '0'], {
      env: { BACKUPS_URL: url, BACKUPS_TOKEN: 'x' }
    })
    t.equal(code, 6, url)
    t.match(stderr, reason)
    t.notMatch(stderr, OF_A_LIBRARY)
  }
  const told = (code: string) => connectionError(withCode(code), 'example.com', 5000)
  t.match(told('ENOTFOUND'), { message: /the name example\.com is not known/, exitCode: 6, unsent: true })
  t.match(told('UND_ERR_HEADERS_TIMEOUT'), { message: /nothing came for 5 s/, unsent: false })
  t.match(told('CERT_HAS_EXPIRED'), { message: /example\.com is not trusted: it has expired/, exitCode: 1 })
  t.match(told('UNABLE_TO_VERIFY_LEAF_SIGNATURE').message, 'its issuer is not known; see NODE_EXTRA_CA_CERTS')
  t.equal(told('ENEW').message, 'the connection failed: it broke (ENEW)')
})

t.test('wrong options are named, with where to look', async (t) => {
  const options = { json: { type: 'boolean' }, output: { type: 'string', short: 'o' } } as const
  for (const [args, message] of [
    [['--nonsense'], 'get has no option --nonsense: see get --help'],
    [['-x'], 'get has no option -x: see get --help'],
    [['--json=1'], '--json takes no value: see get --help'],
    [['-o'], '--output needs a value: see get --help'],
    [['--output', '--json'], '--output needs a value: see get --help']
  ] as const) {
    t.throws(() => parseOptions('get', [...args], options), { exitCode: 2, message })
  }
})

t.test('a refusal tells what it means, and what the server said', async (t) => {
  for (const [status, body, message] of [
    [401, { message: 'unauthorized' }, 'the server does not know these credentials: unauthorized [401]'],
    [403, { message: 'forbidden' }, 'these credentials may not do this: forbidden [403]'],
    [
      404,
      { message: 'there is no backup "x"', code: 'DB_BACKUPS_NOT_FOUND' },
      'there is no backup "x" [404]'
    ],
    [
      404,
      { message: 'Route GET:/ak/api/v1/backups not found' },
      'the server has no backups at this address; is BACKUPS_URL right?: Route GET:/ak/api/v1/backups not found [404]'
    ],
    [
      400,
      { message: 'already_in_progress', id: ID },
      `something else is running; try again when it has ended: already_in_progress (${ID}) [400]`
    ],
    [503, {}, 'the server cannot serve this now: refused [503]'],
    [500, {}, 'GET backups: refused [500]']
  ] as const) {
    t.equal(new ReplyError(status, {}, body, 'GET backups').message, message)
  }
})
