/** The three databases of a console, by the role each plays. */
export type LogicalDatabase = 'components' | 'sessions' | 'system'

/** Real CouchDB database names, by role. */
export interface DatabaseNames {
  components: string
  sessions: string
  system: string
  /** Where backups are kept. Default: the system database. */
  backups?: string
}
