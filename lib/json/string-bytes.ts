export const QUOTE = 0x22
export const BACKSLASH = 0x5c

/** 1 for each byte that makes a two-byte escape with a backslash before it. */
export const ESCAPABLE = new Uint8Array(256)
for (const c of '"\\/bfnrt') ESCAPABLE[c.charCodeAt(0)] = 1
