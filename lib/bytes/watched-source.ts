/** A source that can be read again and again. */
export interface WatchedSource {
  open(): AsyncGenerator<Uint8Array>
  /** Tells why the source could not be read. A request that sends it fails for another reason then. */
  failure(): unknown
}

/** Watches a source that is read while it is sent. @param read starts the stream of its bytes anew */
export function watchedSource(read: () => AsyncIterable<Uint8Array>): WatchedSource {
  let failure: unknown
  return {
    async *open() {
      try {
        yield* read()
      } catch (error) {
        failure = error
        throw error
      }
    },
    failure: () => failure
  }
}
