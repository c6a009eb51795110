/** The name of the command. */
export const NAME = 'fastify-couchdb-backups'
