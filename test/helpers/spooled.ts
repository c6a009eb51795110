import { readdir, readlink, stat } from 'node:fs/promises'

/** Returns the names in a directory, and the sizes of the unnamed files in it that a process has open. */
export async function spooledIn(directory: string, pid = process.pid): Promise<(string | number)[]> {
  const unnamed: number[] = []
  for (const fd of await readdir(`/proc/${pid}/fd`)) {
    const path = `/proc/${pid}/fd/${fd}`
    const target = await readlink(path).catch(() => '')
    // the process may close the file meanwhile
    const found =
      target.startsWith(directory) && target.endsWith('(deleted)') && (await stat(path).catch(() => null))
    if (found) unnamed.push(found.size)
  }
  return [...(await readdir(directory)), ...unnamed]
}
