export const QUOTE = 0x22
export const BACKSLASH = 0x5c

/** 1 for what may follow a backslash in a string, but for the digits of `\u`. */
export const ESCAPABLE = new Uint8Array(256)
for (const c of '"\\/bfnrt') ESCAPABLE[c.charCodeAt(0)] = 1
