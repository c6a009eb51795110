import type { Encryption } from '../../types/options.js'
import { HostTimeoutError, KeyUnavailableError, WrongKeyError } from '../errors.js'
import { hostWithin } from '../waits/host-code.js'
import { KEY_BYTES, SealingKey } from './sealing-key.js'

/** Keys by id, all that something sealed needs. */
export type Keys = ReadonlyMap<string, SealingKey>

export const NO_KEYS: Keys = new Map()

/** Asks the host for keys, each time they are needed. */
export class Keyring {
  /** Id of the key for what is written. */
  readonly current: string
  /** Whether backups that are not sealed may not be read. */
  readonly refusesPlain: boolean
  readonly #key: Encryption['key']
  readonly #timeout: number

  /** @param timeout milliseconds for one key */
  constructor({ current, key, plain = 'read' }: Encryption, timeout: number) {
    this.current = current
    this.refusesPlain = plain === 'refuse'
    this.#key = key
    this.#timeout = timeout
  }

  /** @throws KeyUnavailableError, which never tells what the host gave */
  async get(id: string): Promise<SealingKey> {
    let bytes: unknown
    try {
      bytes = await hostWithin(this.#timeout, 'encryption.key', () => this.#key(id))
    } catch (error) {
      const late = error instanceof HostTimeoutError
      throw new KeyUnavailableError(shown(id), late ? error.message : `encryption.key failed${kindOf(error)}`)
    }
    if (!(bytes instanceof Uint8Array) || bytes.length !== KEY_BYTES)
      throw new KeyUnavailableError(shown(id), `encryption.key gave no ${KEY_BYTES} bytes`)
    return new SealingKey(id, bytes)
  }
}

/** Finds the keys with these check values. @throws KeyUnavailableError, WrongKeyError */
export async function keysFor(
  keyring: Keyring | undefined,
  wanted: Readonly<Record<string, unknown>>
): Promise<Keys> {
  const found = new Map<string, SealingKey>()
  for (const [id, check] of Object.entries(wanted)) {
    if (!keyring) throw new KeyUnavailableError(shown(id), 'the option encryption is missing')
    const key = await keyring.get(id)
    if (key.check !== check) throw new WrongKeyError(shown(id))
    found.set(id, key)
  }
  return found
}

/** Returns no more of an error of the host's: its texts may hold a key. */
function kindOf(error: unknown): string {
  const { name, code } = (error ?? {}) as { name?: unknown; code?: unknown }
  const told = [name, code].filter((text) => typeof text === 'string').join(' ')
  return told === '' ? '' : ` (${shown(told)})`
}

const MOST_SHOWN = 100

/** Somebody may have edited the id. */
const shown = (id: string): string => id.slice(0, MOST_SHOWN)
