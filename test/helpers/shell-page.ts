import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { Test } from 'tap'

const ROOT = join(__dirname, '..', '..')

interface ShellBlock {
  /** Heading of the section that holds the block. */
  heading: string
  code: string
}

/** Returns the `sh` blocks of a page, in order. */
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
  /**
   * Runs a block, and returns what it printed.
   * @throws when one of its commands fails
   */
  run(block: ShellBlock): Promise<string>
}

/** Opens a bash that ends at the first command that fails. */
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
      // `for await` would end the iterator
      for (let next = await output.next(); !next.done; next = await output.next()) {
        printed += next.value
        if (printed.endsWith(end)) return printed.slice(0, -end.length)
      }
      throw new Error(`"${heading}" failed:\n${code}\n${printed}${await errors}`)
    }
  }
}
