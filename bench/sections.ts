import { readFile, writeFile } from 'node:fs/promises'

/** Writes the first part of a file of results, before its first section. Keeps the sections. */
export async function writeHead(file: string, head: string): Promise<void> {
  const text = await textOf(file)
  const first = text.search(/^## /m)
  await writeFile(file, joined(head, first < 0 ? '' : text.slice(first)))
}

/** Prints a section of a file of results, and puts it in the place of an earlier one with its title. */
export async function writeSection(file: string, title: string, section: string): Promise<void> {
  console.log(section)
  const text = await textOf(file)
  const at = text.indexOf(`${title}\n`)
  const before = at < 0 ? text : text.slice(0, at)
  const rest = at < 0 ? '' : text.slice(at + title.length)
  const next = rest.search(/^## /m)
  await writeFile(file, joined(before, section, next < 0 ? '' : rest.slice(next)))
}

const joined = (...parts: string[]): string =>
  parts
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .join('\n\n')
    .concat('\n')

async function textOf(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return ''
  }
}
