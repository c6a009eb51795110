/** Ids that a restore leaves alone in one database. Notes which of them are asked for: those that a document has. */
export class SkipList extends Set<string> {
  readonly #found = new Set<string>()

  /** @param id of a document of the backup, or of the target */
  override has(id: string): boolean {
    const listed = super.has(id)
    if (listed) this.#found.add(id)
    return listed
  }

  /** Returns the ids that nobody asked for. */
  unknown(): string[] {
    return [...this].filter((id) => !this.#found.has(id))
  }
}
