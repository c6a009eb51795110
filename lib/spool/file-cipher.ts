import { createCipheriv, randomBytes } from 'node:crypto'

const BLOCK = 16
/** Bytes at a time: Node.js allocates as many for the result. */
const PIECE = 64 * 1024

/**
 * Keeps the bytes of one file from being read by others: AES-256-CTR with a key that only this process has, for this
 * file alone. A position's key stream may be used for one write only.
 */
export class FileCipher {
  readonly #key = randomBytes(32)

  /** Puts the other form, sealed or clear, of bytes at a position of the file into `into`, which may be the same. */
  apply(bytes: Uint8Array, position: number, into: Buffer): void {
    const counter = Buffer.alloc(BLOCK)
    counter.writeBigUInt64BE(BigInt(Math.floor(position / BLOCK)), BLOCK - 8)
    const cipher = createCipheriv('aes-256-ctr', this.#key, counter)
    cipher.update(Buffer.alloc(position % BLOCK))
    for (let at = 0; at < bytes.length; at += PIECE)
      cipher.update(bytes.subarray(at, at + PIECE)).copy(into, at)
  }
}
