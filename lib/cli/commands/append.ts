import { readFile, stat } from 'node:fs/promises'
import { buffer } from 'node:stream/consumers'
import { checkBackupId, LATEST, resolveBackupId } from '../backup-id.js'
import type { Command, Context } from '../command.js'
import { CliError, fileError, usageError } from '../errors.js'
import { bytes as sizeOf } from '../format.js'

/** Far above a server's limit, but below that of a string of its JSON. */
const MAX_BYTES = 128 * 1024 * 1024

export const append: Command = {
  summary: 'append data to a backup',
  usage: '<id> <name> <file|->',
  help: `  --base64     append base64 of the data, for data that is not UTF-8

An attachment of the same name is replaced. - reads stdin.`,
  options: { base64: { type: 'boolean' } },
  arguments: [3, 3],
  completes: { arguments: [LATEST], files: true },
  check([id, name]) {
    checkBackupId(id)
    // These names mean other paths in a URL.
    if (['', '.', '..'].includes(name)) throw usageError(`"${name}" cannot be a name`)
  },
  async run(context, [given, name, file], { base64 }) {
    const data = await readData(context, file)
    const id = await resolveBackupId(context, given)
    const attachment = base64 ? data.toString('base64') : utf8(data)
    const call = { method: 'PUT', path: ['backups', id, 'attachments', name], json: { attachment } } as const
    const { att_name } = await context.client.json<{ att_name: string }>(call, { idempotent: true })
    const bytes = Buffer.byteLength(attachment)
    return { result: { id, att_name, bytes }, text: `${att_name}: ${sizeOf(bytes)} appended to ${id}` }
  }
}

async function readData({ stdin }: Context, file: string): Promise<Buffer> {
  try {
    const data =
      file === '-' ? await buffer(stdin) : (await stat(file)).size > MAX_BYTES ? null : await readFile(file)
    if (data && data.length <= MAX_BYTES) return data
  } catch (error) {
    throw fileError(error, file)
  }
  throw new CliError(`${file} is larger than ${sizeOf(MAX_BYTES)}`)
}

function utf8(data: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(data)
  } catch {
    throw new CliError('the data is not UTF-8: --base64 encodes it')
  }
}
