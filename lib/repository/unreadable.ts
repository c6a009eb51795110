/** A document that could not be read, as a backup tells of it. */
interface NamedDocument {
  id: string
  id_truncated?: boolean
  reason: string
}

interface ToldUnreadable {
  unreadable?: readonly NamedDocument[]
  unreadable_count?: number
}

/** Returns the documents that could not be read; `undefined` where a backup does not name all of them by whole ids. */
export function allUnreadable({
  unreadable = [],
  unreadable_count: count = 0
}: ToldUnreadable): readonly NamedDocument[] | undefined {
  const areNamed = count <= unreadable.length && !unreadable.some(({ id_truncated: cut }) => cut)
  return areNamed ? unreadable : undefined
}
