import { checkBackupId, LATEST, resolveBackupId } from '../backup-id.js'
import type { Command, Context, Outcome } from '../command.js'
import { download } from '../download.js'
import { CliError, EXIT, usageError } from '../errors.js'
import { bytes as sizeOf } from '../format.js'
import { isGzipName } from '../gzip-file.js'
import { PartFile, type Sink } from '../part-file.js'
import { writeOut } from '../text.js'

export const get: Command = {
  summary: 'download a backup',
  usage: '<id> [-o FILE]',
  help: `  -o, --output FILE   where to; - is stdout (default <id>.json). A FILE whose
                      name ends in .gz is compressed
  -f, --force         replace FILE

The backup is written to FILE.part, checked to be whole, and then named FILE.
What an interrupt or a broken connection leaves in FILE.part is continued by
the same command, if the server can: it can where it knows the backup's
length, which is not so for backups of athena's and for those during which
documents changed.`,
  options: {
    output: { type: 'string', short: 'o' },
    force: { type: 'boolean', short: 'f' }
  },
  arguments: [1, 1],
  completes: { arguments: [LATEST], values: { output: 'file' } },
  check([id], { output, json }) {
    checkBackupId(id)
    if (output === '-' && json) throw usageError('--json needs stdout, which -o - takes')
    if (output === '') throw usageError('--output is empty')
  },
  async run(context, [given], { output: wanted, force }) {
    const id = await resolveBackupId(context, given)
    const output = wanted ?? `${id}.json`
    if (output === '-') return toStdout(context, id)
    return toFile(context, id, String(output), force === true)
  }
}

async function toFile(
  { client, progress }: Context,
  id: string,
  path: string,
  force: boolean
): Promise<Outcome> {
  const file = await PartFile.open(path, id, force)
  const { position: resumedFrom } = file
  try {
    await download(client, id, file, (done, total) => progress.transfer(path, done, total))
  } catch (error) {
    progress.clear()
    if (error instanceof CliError && error.exitCode !== EXIT.unavailable) {
      await file.discard()
      throw error
    }
    if (await file.suspend())
      progress.warn(`${sizeOf(file.position)} of the backup are in ${path}.part: run this again to go on`)
    throw error
  }
  const bytes = file.position
  await file.finish(force)
  const fileBytes = isGzipName(path) ? file.size : undefined
  const result = {
    id,
    file: path,
    bytes,
    ...(fileBytes !== undefined && { file_bytes: fileBytes }),
    ...(resumedFrom > 0 && { resumed_from: resumedFrom })
  }
  const compressed = fileBytes === undefined ? '' : `, compressed to ${sizeOf(fileBytes)}`
  return { result, text: `${path}: ${sizeOf(bytes)}${compressed}` }
}

async function toStdout({ client, progress, stdout }: Context, id: string): Promise<Outcome> {
  const sink = new StdoutSink(stdout)
  await download(client, id, sink, (done, total) => progress.transfer(id, done, total))
  if (sink.last !== '}') throw new CliError('what came does not end as a backup does')
  return { result: { id, bytes: sink.position }, text: null }
}

class StdoutSink implements Sink {
  readonly #stdout: NodeJS.WriteStream
  position = 0
  etag: string | undefined
  last = ''

  constructor(stdout: NodeJS.WriteStream) {
    this.#stdout = stdout
  }

  async begin(etag: string | undefined): Promise<void> {
    if (this.position > 0) {
      throw new CliError('the connection broke, and the server cannot go on where it did')
    }
    this.etag = etag
  }

  async write(piece: Uint8Array): Promise<void> {
    this.position += piece.length
    this.last = String.fromCharCode(piece[piece.length - 1])
    await writeOut(this.#stdout, piece)
  }
}
