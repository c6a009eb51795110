import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  type DecipherGCM,
  hkdfSync,
  randomBytes,
  timingSafeEqual
} from 'node:crypto'

export const KEY_BYTES = 32
const CIPHER = 'aes-256-gcm'
const NONCE = 12
const TAG = 16
/** Version of the form of sealed bytes: this byte, the nonce, the ciphertext, the tag. */
const SEAL_VERSION = 1
const HEAD = 1 + NONCE
/** Bytes that sealing adds. */
export const SEAL_BYTES = HEAD + TAG
/** Bytes encrypted or decrypted at a time: Node.js allocates as many for the result. */
const PIECE = 64 * 1024
/** Characters of a check value: it tells one key from another, and is no secret. */
const CHECK_CHARACTERS = 16

/** Says what sealed bytes are and where they belong: they open nowhere else. */
export type SealContext = readonly (string | number)[]

/** Thrown for bytes that were not sealed with this key for this context. */
export class NotSealedError extends Error {
  override readonly name = 'NotSealedError'
}

/**
 * Seals with one key of the host: AES-256-GCM with a random nonce of 96 bits, and HMAC-SHA-256. Each purpose has a
 * key of its own, derived by HKDF-SHA-256. One key may seal 2^32 chunks (NIST SP 800-38D, 8.3), 8 PiB of lines.
 */
export class SealingKey {
  readonly id: string
  /** Tells whether another key of the same id is this one. */
  readonly check: string
  readonly #seal: Buffer
  readonly #mac: Buffer

  /** @param bytes {@link KEY_BYTES}, which are not kept */
  constructor(id: string, bytes: Uint8Array) {
    const derive = (purpose: string) =>
      Buffer.from(hkdfSync('sha256', bytes, id, `fastify-couchdb-backups ${purpose} 1`, KEY_BYTES))
    this.id = id
    this.#seal = derive('seal')
    this.#mac = derive('mac')
    this.check = derive('check').toString('hex').slice(0, CHECK_CHARACTERS)
  }

  /** Seals bytes piece by piece, with a new nonce each time it is called. */
  async *seal(bytes: AsyncIterable<Uint8Array>, context: SealContext): AsyncGenerator<Buffer> {
    const { cipher, head } = this.#cipher(context)
    yield head
    for await (const piece of bytes)
      for (let at = 0; at < piece.length; at += PIECE) yield cipher.update(piece.subarray(at, at + PIECE))
    cipher.final()
    yield cipher.getAuthTag()
  }

  /** Opens sealed bytes in their own memory. Returns the part they fill. @throws NotSealedError */
  open(sealed: Buffer, context: SealContext): Buffer {
    if (sealed.length < SEAL_BYTES) throw new NotSealedError('no sealed bytes')
    const decipher = this.#decipher(sealed, context)
    const end = sealed.length - TAG
    decipher.setAuthTag(sealed.subarray(end))
    for (let at = HEAD; at < end; at += PIECE)
      decipher.update(sealed.subarray(at, Math.min(at + PIECE, end))).copy(sealed, at)
    finish(decipher)
    return sealed.subarray(HEAD, end)
  }

  /** Opens sealed bytes as they come. The bytes count only once the end has come. @throws NotSealedError */
  async *openStream(sealed: AsyncIterable<Uint8Array>, context: SealContext): AsyncGenerator<Buffer> {
    let decipher: DecipherGCM | undefined
    // The last bytes may be the tag.
    let held: Buffer = Buffer.alloc(0)
    for await (const piece of sealed) {
      held = Buffer.concat([held, piece])
      if (!decipher) {
        if (held.length < HEAD) continue
        decipher = this.#decipher(held, context)
        held = held.subarray(HEAD)
      }
      const ready = held.length - TAG
      if (ready <= 0) continue
      yield decipher.update(held.subarray(0, ready))
      held = held.subarray(ready)
    }
    if (!decipher || held.length !== TAG) throw new NotSealedError('no sealed bytes')
    decipher.setAuthTag(held)
    finish(decipher)
  }

  /** Seals a text, in base64. */
  sealText(text: string, context: SealContext): string {
    const { cipher, head } = this.#cipher(context)
    const sealed = [head, cipher.update(text, 'utf8'), cipher.final()]
    return Buffer.concat([...sealed, cipher.getAuthTag()]).toString('base64')
  }

  /** Opens what {@link sealText} returned. @throws NotSealedError */
  openText(sealed: string, context: SealContext): string {
    return this.open(Buffer.from(sealed, 'base64'), context).toString()
  }

  mac(text: string): string {
    return createHmac('sha256', this.#mac).update(text).digest('hex')
  }

  isMac(mac: unknown, text: string): boolean {
    const expected = Buffer.from(this.mac(text))
    const given = Buffer.from(String(mac))
    return given.length === expected.length && timingSafeEqual(given, expected)
  }

  #cipher(context: SealContext) {
    const nonce = randomBytes(NONCE)
    const cipher = createCipheriv(CIPHER, this.#seal, nonce)
    cipher.setAAD(this.#associated(context))
    return { cipher, head: Buffer.concat([Buffer.of(SEAL_VERSION), nonce]) }
  }

  /** @param sealed begins with sealed bytes @throws NotSealedError */
  #decipher(sealed: Buffer, context: SealContext): DecipherGCM {
    if (sealed[0] !== SEAL_VERSION) throw new NotSealedError('no sealed bytes')
    const decipher = createDecipheriv(CIPHER, this.#seal, sealed.subarray(1, HEAD), { authTagLength: TAG })
    return decipher.setAAD(this.#associated(context))
  }

  #associated(context: SealContext): Buffer {
    return Buffer.from(JSON.stringify(['fastify-couchdb-backups', SEAL_VERSION, this.id, ...context]))
  }
}

function finish(decipher: { final(): Buffer }): void {
  try {
    decipher.final()
  } catch (error) {
    throw new NotSealedError('the seal is broken', { cause: error })
  }
}
