import { backupCall, HeadReader } from './backup-head.js'
import type { Client, Reply } from './client.js'
import { CliError, ConnectionError, ReplyError } from './errors.js'
import type { Sink } from './part-file.js'

/** Transfers a backup, and resumes it after a fault where the server can. @throws CliError */
export async function download(
  client: Client,
  id: string,
  sink: Sink,
  onProgress: (done: number, total: number | undefined) => void
): Promise<void> {
  let farthest = sink.position
  const hasProgressed = () => {
    const progressed = sink.position > farthest
    farthest = Math.max(farthest, sink.position)
    return progressed
  }
  const attempt = async () => {
    const reply = await openRest(client, id, sink)
    if (reply) await transfer(reply, sink, onProgress)
  }
  await client.retry(attempt, undefined, hasProgressed)
}

/** Asks for what is missing. @returns `null` when nothing is */
async function openRest(client: Client, id: string, sink: Sink): Promise<Reply | null> {
  const { position, etag } = sink
  const resumes = position > 0 && etag !== undefined
  const headers = resumes ? { range: `bytes=${position}-`, 'if-range': etag } : undefined
  let reply: Reply
  try {
    reply = await client.open({ ...backupCall(id), headers })
  } catch (error) {
    if (!resumes || !(error instanceof ReplyError) || error.status !== 416) throw error
    if (error.headers['content-range'] === `bytes */${position}`) return null
    reply = await client.open(backupCall(id))
  }
  if (reply.status === 206) checkContinues(reply, sink)
  else await sink.begin(reply.headers.etag)
  return reply
}

function checkContinues({ headers, discard }: Reply, { position, etag }: Sink): void {
  const start = /^bytes (\d+)-/.exec(headers['content-range'] ?? '')?.[1]
  if (Number(start) === position && headers.etag === etag) return
  discard()
  throw new CliError('the server sent another part of the backup than it was asked for')
}

async function transfer(
  { status, headers, body }: Reply,
  sink: Sink,
  onProgress: (done: number, total: number | undefined) => void
): Promise<void> {
  const length = headers['content-length'] === undefined ? undefined : Number(headers['content-length'])
  const total = length === undefined ? undefined : sink.position + length
  // A continued part has no head, and had a good one.
  let head: HeadReader | undefined = status === 206 ? undefined : new HeadReader()
  let held: Buffer[] = []
  for await (const piece of body) {
    held.push(piece)
    if (head) {
      if (!head.write(piece)) continue
      refuseUnusable(head)
      head = undefined
    }
    for (const bytes of held) await sink.write(bytes)
    held = []
    onProgress(sink.position, total)
  }
  if (head) refuseUnusable(head)
  if (total !== undefined && sink.position !== total) throw new ConnectionError('the reply was cut off')
}

function refuseUnusable({ head: { in_progress: running, error } }: HeadReader): void {
  if (running) throw new CliError('the backup is still in progress: it has no documents yet')
  if (error) throw new CliError(`the backup has failed: ${error}`)
}
