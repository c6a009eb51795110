import type { UnreadableDocument } from '../../types/backups.js'
import { DamagedBackupError, NotSealedBackupError } from '../errors.js'
import { type Keyring, type Keys, keysFor, NO_KEYS } from '../seal/keyring.js'
import { NotSealedError, type SealingKey } from '../seal/sealing-key.js'
import { contentDigest, type Head, type HeaderDocument, type HeaderSeal, SEALED_LAYOUT } from './layout.js'

/** The text that a sealed header tells in place of why the backup has failed. */
const ERROR = 'the backup failed; the reason is sealed'

/** The texts of a header that may hold ids of documents. */
interface Texts {
  error?: string
  unreadable: Record<string, UnreadableDocument[]>
}

type Summaries = HeaderDocument['dbs']

/** The members of a header that sealing changes, opened, and the keys of its chunks. */
export interface OpenedHeader {
  keys: Keys
  dbs: Head['dbs']
  error?: unknown
}

interface SealedHeaderOptions {
  /** Id of the backup. */
  id: string
  key: SealingKey
  /** All keys that its chunks are sealed with. */
  keys: Iterable<SealingKey>
}

/** Seals a header: the texts with ids of documents in it, and, once the backup has ended, all of it by a MAC. */
export function sealHeader(header: HeaderDocument, { id, key, keys }: SealedHeaderOptions): HeaderDocument {
  const { error, dbs, storage, ...told } = header
  const checks = [key, ...keys].map(({ id, check }) => [id, check] as const)
  const texts = textsOf(header)
  const seal: HeaderSeal = {
    key: key.id,
    keys: Object.fromEntries(checks.toSorted(([a], [b]) => (a < b ? -1 : 1))),
    ...(texts && { texts: key.sealText(JSON.stringify(texts), ['header', id]) })
  }
  const shown = withoutTexts(dbs)
  const sealed: HeaderDocument = {
    ...told,
    ...(error !== undefined && { error: ERROR }),
    dbs: shown,
    storage: {
      ...storage,
      layout: SEALED_LAYOUT,
      ...(storage.sha256 && { sha256: contentDigest(shown, storage.databases) }),
      seal
    }
  }
  if (!header.in_progress) seal.mac = key.mac(coveredBy({ ...sealed, _id: id }))
  return sealed
}

/** Returns a header that lists its parts elsewhere than when it was sealed, its MAC made anew. @param key of the header */
export function resealHeader<Header extends HeaderDocument & { _id: string }>(
  header: Header,
  key: SealingKey
): Header {
  const { storage } = header
  const { mac: _mac, ...seal } = storage.seal as HeaderSeal
  const sealed = { ...header, storage: { ...storage, seal } }
  return { ...sealed, storage: { ...storage, seal: { ...seal, mac: key.mac(coveredBy(sealed)) } } }
}

/** Returns dbs without the texts that hold ids of documents. */
export const withoutTexts = (dbs: Summaries): Summaries =>
  Object.fromEntries(
    Object.entries(dbs).map(([key, { unreadable: _unreadable, ...summary }]) => [key, summary])
  )

function textsOf({ error, dbs }: HeaderDocument): Texts | undefined {
  const unreadable = Object.fromEntries(
    Object.entries(dbs).flatMap(([key, { unreadable }]) => (unreadable ? [[key, unreadable]] : []))
  )
  if (error === undefined && Object.keys(unreadable).length === 0) return undefined
  return { ...(error !== undefined && { error }), unreadable }
}

/**
 * Checks a header's seal and opens it. One that is not sealed is opened as it is.
 * @throws KeyUnavailableError, WrongKeyError, DamagedBackupError when it is not what was sealed
 * @throws NotSealedBackupError
 */
export async function openHeader(head: Head, keyring: Keyring | undefined): Promise<OpenedHeader> {
  const { dbs, error, storage } = head
  const seal = storage?.seal
  if (!seal) {
    if (keyring?.refusesPlain && holdsDocuments(head)) throw new NotSealedBackupError(head._id)
    return { keys: NO_KEYS, dbs, error }
  }
  if (!isSeal(seal)) throw changed(head)
  const keys = await keysFor(keyring, seal.keys)
  const key = keys.get(seal.key) as SealingKey
  const isChecked = seal.mac === undefined ? !holdsDocuments(head) : key.isMac(seal.mac, coveredBy(head))
  if (!isChecked) throw changed(head)
  return { keys, dbs, error, ...(seal.texts !== undefined && opened(head, key, seal.texts)) }
}

function opened(head: Head, key: SealingKey, sealed: string): Pick<OpenedHeader, 'dbs' | 'error'> {
  try {
    const { error, unreadable } = JSON.parse(key.openText(sealed, ['header', head._id])) as Texts
    const dbs = Object.entries(head.dbs).map(([name, summary]) => [
      name,
      Object.hasOwn(unreadable, name) ? { ...summary, unreadable: unreadable[name] } : summary
    ])
    return { dbs: Object.fromEntries(dbs), error: error ?? head.error }
  } catch (error) {
    throw error instanceof NotSealedError ? changed(head) : error
  }
}

/** Checks what somebody may have written by hand. */
function isSeal(seal: HeaderSeal): boolean {
  const { key, keys, texts = '' } = seal as Partial<HeaderSeal>
  return (
    typeof key === 'string' &&
    typeof keys === 'object' &&
    keys !== null &&
    Object.hasOwn(keys, key) &&
    typeof texts === 'string'
  )
}

/** Returns whether documents would be read or restored by what a header says; nothing, for instance, by "failed". */
function holdsDocuments({ in_progress: running, error, storage }: Head): boolean {
  if (!storage) return true
  if (running) return false
  const lists = Object.values(storage.databases ?? {}).some((stored) =>
    [stored?.chunks, stored?.manifests, stored?.superseded].some((list) => (list?.length ?? 0) > 0)
  )
  return lists || !error
}

/** Returns what the MAC covers: all but what changes once the backup has ended. */
function coveredBy(header: Pick<Head, '_id' | 'storage'> | (HeaderDocument & { _id: string })): string {
  const { storage, damaged: _damaged, verified: _verified, ...told } = header as Head
  const {
    seal,
    damaged: _found,
    ...stored
  } = (storage ?? {}) as Partial<NonNullable<Head['storage']>> & {
    damaged?: unknown
  }
  const { mac: _mac, ...sealed } = (seal ?? {}) as Partial<HeaderSeal>
  const members = Object.entries(told)
    .filter(([name, value]) => !name.startsWith('_') && value !== undefined)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
  return JSON.stringify(['header', header._id, members, stored, sealed])
}

const changed = ({ _id }: Head) =>
  new DamagedBackupError('header', _id, 'is not as it was sealed: it was changed since')
