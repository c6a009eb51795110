/** What the command is called. */
export const NAME = 'fastify-couchdb-backups'
