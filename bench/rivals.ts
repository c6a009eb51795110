import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'

/** What a process took. */
export interface Run {
  ms: number
  /** Peak resident memory of the process in bytes. */
  rss: number
}

/** Runs a command to its end, its output dropped or taken from and to files by the shell. */
async function shell(command: string): Promise<Run> {
  const startedAt = performance.now()
  const child = spawn('/bin/sh', ['-c', `exec ${command}`], { stdio: ['ignore', 'ignore', 'pipe'] })
  let errors = ''
  let rss = 0
  child.stderr.on('data', (text) => {
    errors += text
  })
  const sampler = setInterval(async () => {
    rss = Math.max(rss, await residentBytes(child.pid))
  }, 100)
  const code = await new Promise((resolve) => child.on('close', resolve))
  clearInterval(sampler)
  if (code !== 0) throw new Error(`${command.split(' ')[0]} ended with ${code}: ${errors.slice(-500)}`)
  return { ms: performance.now() - startedAt, rss }
}

async function residentBytes(pid: number | undefined): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024
}

/** Reads the changes feed with documents, and drops it: no backup can be faster. */
export function rawRead(url: string, database: string): Promise<Run> {
  return shell(`curl -sf '${url}/${database}/_changes?include_docs=true&seq_interval=1000' -o /dev/null`)
}

export function couchbackup(url: string, database: string, file: string): Promise<Run> {
  return shell(
    `'${process.execPath}' '${binary('couchbackup')}' --url '${url}' --db '${database}' --quiet > '${file}'`
  )
}

/** Needs an empty database. */
export function couchrestore(url: string, database: string, file: string): Promise<Run> {
  return shell(
    `'${process.execPath}' '${binary('couchrestore')}' --url '${url}' --db '${database}' --quiet < '${file}'`
  )
}

function binary(name: string): string {
  return require.resolve(`@cloudant/couchbackup/bin/${name}.bin.js`)
}
