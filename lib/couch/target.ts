/** Path and query of a request's URL, below the server's own. */
export interface RequestTarget {
  /** Segments of the path, not encoded. */
  path: readonly string[]
  query?: Record<string, string | number | boolean | undefined>
}

/** Bytes of a request's target: servers take lines of 8 KB, of which a proxy may need some. */
const MAX_TARGET = 4096
/** Bytes of a text that is one value in a head, or in the head of a part of a multipart body. */
const MAX_HEAD_TEXT = 1024
/** Prefixes of ids whose slash stays a slash in a path. */
const SPECIAL = /^(_design|_local)\/(.*)$/s

/** Returns whether a URL can carry path and query: ids, names and revisions may be of any kind. */
export function fitsUrl(target: RequestTarget): boolean {
  const isShort = target.path.every((segment) => segment.length <= MAX_TARGET)
  return isShort && target.path.every(isSegment) && encodeTarget(target).length <= MAX_TARGET
}

/** Returns whether a text from a document can be one value in a head. */
export const fitsHead = (text: string): boolean =>
  text.length <= MAX_HEAD_TEXT && encodeURIComponent(text).length <= MAX_HEAD_TEXT

/** Returns whether a text can be a value in a head as it is. */
export const isPrintable = (text: string): boolean => /^[\x20-\x7e]*$/.test(text)

/** Returns path and query as they are sent. Design and local documents keep the slash after their prefix. */
export function encodeTarget({ path, query }: RequestTarget): string {
  const segments = path.map((segment) => {
    const special = SPECIAL.exec(segment)
    return special ? `${special[1]}/${encodeURIComponent(special[2])}` : encodeURIComponent(segment)
  })
  const parameters = new URLSearchParams()
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined) parameters.set(name, String(value))
  }
  const search = parameters.toString()
  return `/${segments.join('/')}${search ? `?${search}` : ''}`
}

/** Returns whether every server keeps a text as one segment: an empty one and dots name another place. */
function isSegment(text: string): boolean {
  const segment = SPECIAL.exec(text)?.[2] ?? text
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return !/^\.{0,2}$|[\u0000-\u001f\u007f]/.test(segment) && segment.isWellFormed()
}
