/** Runs the linter beside the tests, since its type checker takes one core only. Fails when one of them does. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'

const npm = (script: string, args: readonly string[] = []) => ['run', '--silent', script, '--', ...args]

/** Returns exit code and output. The output waits, so that it is found after that of the tests. */
async function lint(): Promise<[number, string]> {
  const child = spawn('npm', npm('lint'), { stdio: ['ignore', 'pipe', 'pipe'] })
  const exited = once(child, 'exit')
  const [output, errors, [code]] = await Promise.all([text(child.stdout), text(child.stderr), exited])
  return [code ?? 1, output + errors]
}

async function test(): Promise<number> {
  const child = spawn('npm', npm('test:unit', process.argv.slice(2)), { stdio: 'inherit' })
  const [code] = await once(child, 'exit')
  return code ?? 1
}

async function main(): Promise<void> {
  const [[linted, output], tested] = await Promise.all([lint(), test()])
  console.log(output)
  if (linted !== 0) console.error('npm run lint failed: see above')
  process.exitCode = linted || tested
}

void main()
