declare module 'express-pouchdb' {
  import type { IncomingMessage, ServerResponse } from 'node:http'
  import type PouchDB from 'pouchdb'

  interface ExpressPouchOptions {
    mode?: 'fullCouchDB' | 'minimumForPouchDB' | 'custom'
    overrideMode?: { include?: string[]; exclude?: string[] }
    /** Keeps the settings in memory instead of in `config.json`. */
    inMemoryConfig?: boolean
  }

  function expressPouch(
    pouch: typeof PouchDB,
    options?: ExpressPouchOptions
  ): (request: IncomingMessage, response: ServerResponse) => void
  export = expressPouch
}

declare module 'pouchdb' {
  /** Declares the part of PouchDB that the example and the tests use. */
  class PouchDB {
    static plugin(plugin: unknown): typeof PouchDB
    static replicate(source: string, target: string): Promise<unknown>
    static defaults: (options: object) => typeof PouchDB
    static on: (event: string, listener: (name: string) => void) => void
    static emit: (event: string, ...values: unknown[]) => boolean
    constructor(name: string, options?: object)
    once(event: 'created', listener: () => void): void
    info(): Promise<unknown>
    close(): Promise<void>
    destroy(): Promise<unknown>
  }

  export = PouchDB
}

declare module 'pouchdb-adapter-memory' {
  const plugin: unknown
  export default plugin
}
