export const QUOTE = 0x22
export const BACKSLASH = 0x5c

/** 1 for each byte that makes a two-byte escape with a backslash before it. */
export const ESCAPABLE = new Uint8Array(256)
for (const c of '"\\/bfnrt') ESCAPABLE[c.charCodeAt(0)] = 1

export const ZERO = 0x30

export const isDigit = (c: number): boolean => c >= ZERO && c <= 0x39

/** Returns whether there is a backslash from `start` to `end`. A loop is faster than a native search in short texts. */
export function hasEscape(bytes: Uint8Array, start: number, end: number): boolean {
  for (let i = start; i < end; i++) if (bytes[i] === BACKSLASH) return true
  return false
}
