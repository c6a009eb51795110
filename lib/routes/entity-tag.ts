/**
 * Whether a client that sends `If-None-Match` has what would be sent. Compared as weak tags, since a coding before the
 * client makes them so (RFC 9110, 13.1.2).
 */
export function isNotModified(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false
  return header.split(',').some((tag) => tag.trim() === '*' || tag.trim().replace(/^W\//, '') === etag)
}
