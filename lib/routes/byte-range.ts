/**
 * Where a request wants the body to begin: `Range: bytes=N-`, when `If-Range` is absent or has the body's tag.
 * `undefined` asks for the whole, as do the other forms of `Range`, which a server may ignore (RFC 9110, 14.2).
 */
export function rangeStart(
  headers: { range?: string; 'if-range'?: string | string[] },
  etag: string
): number | undefined {
  const [, first] = /^bytes=[ \t]*(\d+)-[ \t]*$/i.exec(headers.range ?? '') ?? []
  const condition = headers['if-range']
  if (first === undefined || (condition !== undefined && condition !== etag)) return undefined
  return Number(first)
}
