import type { Requester } from '../../types/backups.js'

/** Characters of a text to be stored, logged or sent: names and reasons may have megabytes. */
export const MOST = {
  /** An id, a member's or attachment's name. */
  name: 256,
  reason: 500,
  /** One of several things that a message names. */
  inMessage: 150,
  message: 1000,
  /** A stack trace. */
  stack: 8000
}

/** Returns `text`, or its beginning and length. Lone surrogates, which CouchDB refuses, are spelled out. */
export function cutText(text: string, most: number): string {
  if (text.length <= most) return asUnicode(text)
  return `${asUnicode(text.slice(0, most))}... (${text.length} characters)`
}

/** Returns the beginning of an id, or of another name, for a message. */
export const shownName = (name: string): string => name.slice(0, 120)

/** Returns an id as headers and outcomes tell it: of 512 bytes at most, with a mark where it is cut. */
export function toldId(id: string): { id: string; id_truncated?: true } {
  const cut = cutToBytes(id, 512)
  return { id: cut, ...(cut !== id && { id_truncated: true as const }) }
}

/** Cuts a text so that its JSON takes at most so many bytes. */
export function cutToBytes(text: string, bytes: number): string {
  let cut = text.slice(0, bytes)
  while (Buffer.byteLength(JSON.stringify(cut)) - 2 > bytes) cut = cut.slice(0, Math.floor(cut.length * 0.8))
  // A character must not be cut in two.
  return cut === text || !/[\ud800-\udbff]$/.test(cut) ? cut : cut.slice(0, -1)
}

const asUnicode = (text: string): string =>
  text.replace(/\p{Surrogate}/gu, (half) => `\\u${half.charCodeAt(0).toString(16)}`)

/** Returns an error for the log; if its texts or its causes' are long, a copy with these cut. */
export function cutError(error: unknown): unknown {
  if (typeof error === 'string') return cutText(error, MOST.message)
  if (!(error instanceof Error) || isShort(error)) return error
  const { message, stack, cause } = error
  const copy = new Error(
    cutText(message, MOST.message),
    cause === undefined ? {} : { cause: cutError(cause) }
  )
  const { code, statusCode } = error as { code?: unknown; statusCode?: unknown }
  return Object.assign(copy, {
    name: error.name,
    // The stack begins with the message.
    stack: cutText(
      (stack ?? '').replace(message, () => copy.message),
      MOST.stack
    ),
    ...(code === undefined ? undefined : { code }),
    ...(statusCode === undefined ? undefined : { statusCode })
  })
}

/** Returns only the name and id of a requester, cut: a host's object may hold more. */
export function cutRequester(requester: Requester | undefined): Requester | undefined {
  const told = (['name', 'uuid'] as const).flatMap((member) => {
    const value: unknown = requester?.[member]
    return typeof value === 'string' || typeof value === 'number'
      ? [[member, cutText(String(value), MOST.name)]]
      : []
  })
  return told.length > 0 ? Object.fromEntries(told) : undefined
}

/** Returns an error's message. Hosts' code may throw anything. */
export function messageOf(error: unknown): string {
  const message = typeof error === 'object' ? (error as Error | null)?.message : error
  return typeof message === 'string' && message !== '' ? message : 'unknown error'
}

const isShort = ({ message, stack = '', cause }: Error): boolean =>
  message.length <= MOST.message &&
  stack.length <= MOST.stack &&
  (!(cause instanceof Error) || isShort(cause))
