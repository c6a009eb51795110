import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { Test } from 'tap'

const ROOT = join(__dirname, '..', '..')

export interface ShellBlock {
  /** Of the section it stands in. */
  heading: string
  code: string
}

/** The `sh` blocks of a page, in order. */
export function shellBlocks(page: string): ShellBlock[] {
  const blocks: ShellBlock[] = []
  const parts = readFileSync(join(ROOT, page), 'utf8').matchAll(
    /^#+ (?<title>.+)$|^```(?<language>\w*)\n(?<code>[\s\S]*?)^```$/gm
  )
  let heading = ''
  for (const { groups } of parts) {
    if (groups?.title) heading = groups.title
    else if (groups?.language === 'sh') blocks.push({ heading, code: groups.code! })
  }
  return blocks
}

export interface Shell {
  /** @returns what the block printed. @throws when a command of it fails */
  run(block: ShellBlock): Promise<string>
}

/** One bash, as an operator has, that ends at the first command that fails. */
export function openShell(t: Test, cwd: string, env: NodeJS.ProcessEnv): Shell {
  const bash = spawn('bash', ['-euo', 'pipefail'], { cwd, env })
  const exited = once(bash, 'exit')
  const errors = text(bash.stderr)
  const output = bash.stdout.setEncoding('utf8')[Symbol.asyncIterator]()
  t.teardown(async () => {
    bash.kill('SIGKILL')
    await exited
  })
  let count = 0
  return {
    async run({ heading, code }) {
      const end = `--- end of block ${++count} ---\n`
      bash.stdin.write(`{\n${code}\n} </dev/null\necho '${end.trim()}'\n`)
      let printed = ''
      // A loop over the iterator would end it.
      for (let next = await output.next(); !next.done; next = await output.next()) {
        printed += next.value
        if (printed.endsWith(end)) return printed.slice(0, -end.length)
      }
      throw new Error(`"${heading}" failed:\n${code}\n${printed}${await errors}`)
    }
  }
}
