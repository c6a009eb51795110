/** The databases by role, in the order in which they are backed up and shown. */
export const DATABASES = ['components', 'sessions', 'system']

/** Real names of the databases, by role. */
let names = {}

export const keepNames = ({ databases }) => {
  names = databases ?? {}
}

/** Returns the real name of a database, given its role or its key in a backup. */
export const nameOf = (database) => names[database.replace(/^athena_/, '')] ?? database
