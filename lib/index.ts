import type { FastifyInstance, RegisterOptions } from 'fastify'
import fp from 'fastify-plugin'
import type { DbBackups, DbBackupsOptions } from '../types/index.js'
import { Operations } from './operations/operations.js'
import { type ResolvedOptions, resolveOptions } from './options.js'
import { routes } from './routes/index.js'
import { Keyring } from './seal/keyring.js'

const NAME = 'fastify-couchdb-backups'

/**
 * Backs up and restores the CouchDB databases of an application: by six routes under `/api/v[123]/backups`
 * and `/ak/api/v[123]/backups`, and by `fastify.dbBackups`.
 * @throws TypeError at registration, naming the option that is missing or wrong
 */
export const dbBackups = fp<DbBackupsOptions>(
  async (fastify: FastifyInstance, given: DbBackupsOptions & RegisterOptions) => {
    const options = resolveOptions(given)
    await checkKey(options)
    // fastify-plugin makes Fastify ignore these for the plugin itself.
    const { prefix, logLevel, logSerializers } = given
    const operations = new Operations(options, fastify.log.child({ plugin: NAME }), {
      pathPrefix: pathPrefixOf(fastify.prefix, prefix)
    })
    fastify.decorate('dbBackups', forHosts(operations))
    fastify.addHook('onReady', async () => operations.watch())
    // Before open requests have ended: a slow download must not delay records of failure.
    fastify.addHook('preClose', async () => operations.stop())
    fastify.addHook('onClose', async () => operations.close())
    fastify.register(routes, { operations, options, prefix, logLevel, logSerializers })
  },
  { fastify: '5.x', name: NAME, dependencies: [] }
)

/** Characters of a path that stand for themselves (RFC 3986, 3.3), but for the colon, which begins a parameter. */
const FIXED_PATH = /^[\w\-.~!$&'()+,;=@%/]*$/

/**
 * Returns the path before the routes, without a slash at its end, as Fastify joins prefixes.
 * @throws TypeError for one with parameters, of which no URL can be made
 */
function pathPrefixOf(outer: string, given = ''): string {
  const between = given === '' || given.startsWith('/') ? '' : '/'
  const path = `${outer.replace(/\/$/, '')}${between}${given}`.replace(/\/$/, '')
  if (FIXED_PATH.test(path)) return path
  throw new TypeError(
    `${NAME}: option "prefix", with those around it, must be a path without parameters: "${path}"`
  )
}

/** Checks that the current key can be had: otherwise no backup can be made. @throws KeyUnavailableError */
async function checkKey({ encryption, timeouts }: ResolvedOptions): Promise<void> {
  if (encryption) await new Keyring(encryption, timeouts.key).get(encryption.current)
}

/** Returns the operations that hosts may use. */
const forHosts = (operations: Operations): DbBackups => ({
  start: (options) => operations.start(options),
  restore: (source, options) => operations.restore(source, options),
  get: (id) => operations.get(id),
  summary: (id) => operations.summary(id),
  diff: (id, options) => operations.diff(id, options),
  list: () => operations.list(),
  attach: (id, name, data, options) => operations.attach(id, name, data, options),
  remove: (id) => operations.remove(id),
  prune: (options) => operations.prune(options),
  rekey: () => operations.rekey(),
  verify: (id, options) => operations.verify(id, options),
  copy: (id, options) => operations.copy(id, options),
  get schedule() {
    return operations.schedule
  },
  get running() {
    return operations.running
  },
  get databases() {
    return operations.databases
  },
  cancel: (id, options) => operations.cancel(id, options),
  transaction: (txId) => operations.transaction(txId),
  restores: (options) => operations.restores(options)
})

export default dbBackups
export type * from '../types/index.js'
export * from './errors.js'
export { type CouchWebhookStoreOptions, createCouchWebhookStore } from './webhooks/couch-store.js'
export { createMemoryWebhookStore } from './webhooks/memory-store.js'
