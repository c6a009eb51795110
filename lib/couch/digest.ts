import { createHash } from 'node:crypto'

/** An MD5 of bytes as CouchDB writes it in the stub of an attachment: `md5-` and base64. */
export type Digest = string

/** Computes the digest of bytes that come in pieces. */
export class Digesting {
  readonly #md5 = createHash('md5')

  add(piece: Uint8Array): void {
    this.#md5.update(piece)
  }

  /** Passes bytes on, and adds them. */
  async *passing(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const piece of pieces) {
      this.add(piece)
      yield piece
    }
  }

  /** Returns the digest of all bytes; none can be added then. */
  end(): Digest {
    return `md5-${this.#md5.digest('base64')}`
  }
}

export function digestOf(bytes: Uint8Array): Digest {
  const digesting = new Digesting()
  digesting.add(bytes)
  return digesting.end()
}

export async function digestOfStream(pieces: AsyncIterable<Uint8Array>): Promise<Digest> {
  const digesting = new Digesting()
  for await (const piece of pieces) digesting.add(piece)
  return digesting.end()
}

/** Returns the digest that a stub tells. */
export const digestInStub = (digest: unknown): Digest | undefined =>
  /^md5-[A-Za-z0-9+/]{22}==$/.exec(String(digest))?.[0]

/** Returns the digest that an attachment's entity tag tells, which is of the replica that has answered. */
export function digestInTag(etag: string | string[] | undefined): Digest | undefined {
  const base64 = /^"([A-Za-z0-9+/]{22}==)"$/.exec(String(etag))?.[1]
  return base64 === undefined ? undefined : `md5-${base64}`
}
