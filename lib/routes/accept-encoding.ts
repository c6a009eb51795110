/** Quality of what a client does not name: low enough that whatever it names comes first. */
const UNNAMED = { identity: 0.0002, gzip: 0.0001 }

const ITEM = /^\s*([\w!#$%&'*+.^`|~-]+)\s*(?:;\s*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*)?$/i

/**
 * Returns whether a client prefers gzip to the body as it is (RFC 9110, 12.5.3). It does not where both are
 * equal, since only the body as it is can be resumed, nor where it takes neither.
 */
export function prefersGzip(header: string | undefined): boolean {
  const named = qualitiesIn(header ?? '')
  const others = named.get('*')
  const gzip = named.get('gzip') ?? named.get('x-gzip') ?? others ?? UNNAMED.gzip
  return gzip > (named.get('identity') ?? others ?? UNNAMED.identity)
}

/** Returns qualities, 0 to 1, by the names of codings. Leaves out what is malformed. */
function qualitiesIn(header: string): Map<string, number> {
  const qualities = new Map<string, number>()
  for (const item of header.split(',')) {
    const [, name, quality = '1'] = ITEM.exec(item) ?? []
    if (name !== undefined) qualities.set(name.toLowerCase(), Number(quality))
  }
  return qualities
}
