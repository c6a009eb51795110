import { once } from 'node:events'

/** Writes to stdout, and waits while its reader is slower. */
export async function writeOut(stdout: NodeJS.WritableStream, data: string | Uint8Array): Promise<void> {
  if (!stdout.write(data)) await once(stdout, 'drain')
}
