export interface Part {
  headers: Record<string, string>
  body: Buffer
}

/**
 * Splits a multipart body into its parts.
 * @throws when the closing boundary is missing
 */
export function parseMultipart(contentType: string, body: Buffer): Part[] {
  const match = /;\s*boundary=(?:"([^"]+)"|([^;\s]+))/i.exec(contentType)
  if (!match) throw new Error('no boundary')
  const delimiter = Buffer.from(`\r\n--${match[1] ?? match[2]}`)
  const parts: Part[] = []
  // the first delimiter may open the body, without the line break before it
  let at = body.subarray(0, delimiter.length - 2).equals(delimiter.subarray(2)) ? -2 : body.indexOf(delimiter)
  for (;;) {
    if (at === -1) throw new Error('no closing boundary')
    const start = at + delimiter.length
    if (body.toString('latin1', start, start + 2) === '--') return parts
    const headersEnd = body.indexOf('\r\n\r\n', start)
    const next = headersEnd === -1 ? -1 : body.indexOf(delimiter, headersEnd + 2)
    if (next === -1) throw new Error('no closing boundary')
    const headers: Record<string, string> = {}
    for (const line of body.toString('utf8', start, headersEnd).split('\r\n')) {
      const colon = line.indexOf(':')
      if (colon > 0) headers[line.slice(0, colon).trim().toLowerCase()] = line.slice(colon + 1).trim()
    }
    parts.push({ headers, body: body.subarray(headersEnd + 4, Math.max(next, headersEnd + 4)) })
    at = next
  }
}

/**
 * Returns the name of the attachment that a part carries, and removes it from `following`: the name in the part's
 * percent-encoded `filename`, or else the first one left.
 */
export function partName(part: Part, following: string[]): string | undefined {
  const quoted = /;\s*filename="((?:[^"\\]|\\.)*)"/i.exec(part.headers['content-disposition'] ?? '')
  const index = quoted ? following.indexOf(decoded(quoted[1]!.replace(/\\(.)/g, '$1'))) : 0
  return following.splice(Math.max(0, index), 1)[0]
}

function decoded(name: string): string {
  try {
    return decodeURIComponent(name)
  } catch {
    return name
  }
}
