import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createDeflate } from 'node:zlib'

/** Writes an upload in athena's compressed form, in which a small file can hold very many documents. */
export async function writeCompressedUpload(file: string, documents: Iterable<string>): Promise<void> {
  const output = createWriteStream(file)
  output.write('{"dbs":{"DB_COMPONENTS":{"compressed_docs":"')
  await pipeline(Readable.from(arrayOf(documents)), createDeflate({ level: 1 }), toBase64(), output, {
    end: false
  })
  output.end('"}}}')
  await once(output, 'close')
}

/** Yields the text of a JSON array in pieces of about 64 KiB. */
function* arrayOf(documents: Iterable<string>): Generator<Buffer> {
  let text = '['
  let separator = ''
  for (const document of documents) {
    text += separator + document
    separator = ','
    if (text.length < 64 * 1024) continue
    yield Buffer.from(text)
    text = ''
  }
  yield Buffer.from(`${text}]`)
}

function toBase64(): Transform {
  let rest = Buffer.alloc(0)
  return new Transform({
    transform(piece: Buffer, _encoding, done) {
      const all = Buffer.concat([rest, piece])
      const whole = all.length - (all.length % 3)
      rest = all.subarray(whole)
      done(null, all.toString('base64', 0, whole))
    },
    flush(done) {
      done(null, rest.toString('base64'))
    }
  })
}
