import { Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { BackupNotFoundError, OperationInProgressError } from '../../lib/index.js'
import type { BackupSummary, Requester, RestoreOptions, StartOptions } from '../../types/index.js'
import type { Access } from './access.js'
import type { RunningRestore } from './running-restore.js'

export interface OperatorRoutesOptions {
  access: Access
  running: RunningRestore
}

interface SkipQuery {
  skip_system?: string[]
  skip_components?: string[]
}

/** How many summaries are read at the same time. */
const READ_AT_ONCE = 8

const BACKUP_ID = { type: 'string', pattern: '^03_ibp_db_backup_[0-9]{1,20}$' }
const skipList = { type: 'array', items: { type: 'string', minLength: 1 } }
const byId = { type: 'object', properties: { id: BACKUP_ID } }
const skipQuery = {
  type: 'object',
  additionalProperties: false,
  properties: { skip_system: skipList, skip_components: skipList }
}
const startBody = {
  type: 'object',
  additionalProperties: false,
  properties: {
    note: { type: 'string', maxLength: 1024 },
    protect: { type: 'boolean' },
    full: { type: 'boolean' }
  }
}
const overviewQuery = {
  type: 'object',
  additionalProperties: false,
  properties: { limit: { type: 'integer', minimum: 1, maximum: 1000, default: 25 } }
}

/**
 * Adds what the operator page needs besides the backup APIs: summaries of backups, the schedule, backups with a note,
 * pruning, and dry runs as previews. A session needs the same action as for the backup APIs.
 */
export async function operatorRoutes(
  app: FastifyInstance,
  { access, running }: OperatorRoutesOptions
): Promise<void> {
  const requesters = new WeakMap<FastifyRequest, Requester>()
  app.addHook('onRequest', async (request, reply) => {
    reply.header('cache-control', 'no-store')
    const action = 'blockchain.optools.settings'
    requesters.set(request, await access.authorize(request, { action, scheme: 'session' }))
  })
  app.setErrorHandler(async (error, _request, reply) => {
    if (error instanceof OperationInProgressError) {
      return reply.code(400).send({ statusCode: 400, message: error.message, id: error.id })
    }
    throw error
  })

  app.get<{ Querystring: { limit: number } }>(
    '/overview',
    { schema: { querystring: overviewQuery } },
    async (request) => {
      const { ids } = await app.dbBackups.list()
      const backups = await summaries(app, ids.reverse().slice(0, request.query.limit))
      const user = requesters.get(request)?.name
      const { schedule } = app.dbBackups
      return { user, total: ids.length, backups, restore: running.txId, schedule }
    }
  )

  // what the six routes have no body for
  app.post<{ Body: Pick<StartOptions, 'note' | 'protect' | 'full'> }>(
    '/backups',
    { schema: { body: startBody } },
    async (request, reply) => {
      const options = { ...request.body, requester: requesters.get(request) }
      const { id } = await app.dbBackups.start(options)
      return reply.code(202).send({ message: 'in-progress', id })
    }
  )

  app.get('/pruning', async () => app.dbBackups.prune({ dryRun: true }))

  app.post('/pruning', async () => app.dbBackups.prune())

  app.get<{ Params: { id: string } }>('/backups/:id', { schema: { params: byId } }, async (request) =>
    app.dbBackups.summary(request.params.id)
  )

  const preview = async (
    source: Parameters<typeof app.dbBackups.restore>[0],
    request: FastifyRequest,
    reply: FastifyReply
  ) => {
    const options: RestoreOptions = {
      dryRun: true,
      skip: skipOf(request.query as SkipQuery),
      requester: requesters.get(request)
    }
    const { tx_id } = await app.dbBackups.restore(source, options)
    return reply.code(202).send({ message: 'in-progress', tx_id })
  }

  app.put<{ Params: { id: string } }>(
    '/backups/:id/preview',
    { schema: { params: byId, querystring: skipQuery } },
    async (request, reply) => preview({ id: request.params.id }, request, reply)
  )

  app.register(async (uploads) => {
    // leave the body a stream, since a backup may be larger than memory
    uploads.removeAllContentTypeParsers()
    uploads.addContentTypeParser('application/json', (_request, payload, done) => done(null, payload))
    uploads.put('/preview', { schema: { querystring: skipQuery } }, async (request, reply) => {
      const body = (request.body as Readable | undefined) ?? Readable.from([])
      return preview({ body }, request, reply)
    })
  })
}

const skipOf = ({ skip_system, skip_components }: SkipQuery): RestoreOptions['skip'] => ({
  system: skip_system ?? [],
  components: skip_components ?? []
})

/** Reads the summaries of backups, in the order of `ids`. */
async function summaries(app: FastifyInstance, ids: string[]): Promise<BackupSummary[]> {
  const found: BackupSummary[] = []
  for (let at = 0; at < ids.length; at += READ_AT_ONCE) {
    const some = ids.slice(at, at + READ_AT_ONCE).map((id) =>
      app.dbBackups.summary(id).catch((error: Error) => {
        // the backup was deleted after the ids were read
        if (error instanceof BackupNotFoundError) return undefined
        throw error
      })
    )
    for (const summary of await Promise.all(some)) if (summary) found.push(summary)
  }
  return found
}
