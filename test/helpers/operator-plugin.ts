import { Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { BackupNotFoundError, OperationInProgressError } from '../../lib/index.js'
import type {
  BackupSummary,
  DiffOptions,
  PruneOptions,
  RestoreOptions,
  VerifyDepth
} from '../../types/index.js'

export interface OperatorOptions {
  /** Throws for a request that must not be served. */
  authorize: (request: FastifyRequest) => void
  /** Milliseconds between two lines that tell that a verification goes on. */
  interval?: number
}

type ById = { Params: { id: string } }

/** Stands in for the operator's routes: those that the command line calls, on top of `fastify.dbBackups`. */
export default async function operator(
  app: FastifyInstance,
  { authorize, interval = 10_000 }: OperatorOptions
): Promise<void> {
  app.addHook('onRequest', async (request, reply) => {
    reply.header('cache-control', 'no-store')
    authorize(request)
    // A page of another origin cannot send it without being allowed to.
    const isFromPage = request.method !== 'GET' && request.headers['x-requested-with'] === undefined
    if (isFromPage) throw Object.assign(new Error('no CSRF token'), { statusCode: 403 })
  })
  app.setErrorHandler(async (error: Error & { statusCode?: number; code?: string }, _request, reply) => {
    const { statusCode = 500, code, message } = error
    const id = error instanceof OperationInProgressError ? error.id : undefined
    return reply.code(statusCode).send({ statusCode, code, message, id })
  })

  app.get<{ Querystring: { limit?: string } }>('/api/overview', async ({ query }) => {
    const { ids } = await app.dbBackups.list()
    const backups: BackupSummary[] = []
    for (const id of ids.reverse()) {
      const summary = await app.dbBackups.summary(id).catch((error: Error) => {
        if (!(error instanceof BackupNotFoundError)) throw error
      })
      if (summary) backups.push(summary)
    }
    const isGood = ({ in_progress, error, damaged }: BackupSummary) => !in_progress && !error && !damaged
    return {
      total: ids.length,
      backups: backups.slice(0, Number(query.limit ?? 25)),
      newest_good: backups.find(isGood) ?? null,
      schedule: app.dbBackups.schedule ?? null,
      running: [],
      restores: []
    }
  })

  app.get('/api/schedule', async () => ({ schedule: app.dbBackups.schedule ?? null }))

  app.post<{ Body: Pick<PruneOptions, 'dryRun'> }>('/api/prune', ({ body }) =>
    app.dbBackups.prune({ dryRun: body.dryRun === true })
  )

  app.delete<ById>('/api/backups/:id', ({ params }) => app.dbBackups.remove(params.id))

  app.get<ById & { Querystring: { against: string; values?: string } }>(
    '/api/backups/:id/diff',
    async ({ params, query }, reply) => {
      const options: DiffOptions = { against: query.against, values: query.values === 'true' }
      // It fails before the first line where there is no such backup.
      await app.dbBackups.summary(params.id)
      return sendLines(reply, async (send) => {
        let changes = 0
        for await (const change of app.dbBackups.diff(params.id, options)) {
          changes++
          send(change)
        }
        return { end: true, changes }
      })
    }
  )

  app.post<ById & { Body: { depth: VerifyDepth; from?: string } }>(
    '/api/backups/:id/verify',
    async ({ params, body }, reply) => {
      await app.dbBackups.summary(params.id)
      return sendLines(reply, async (send) => {
        const timer = setInterval(() => send({ running: true }), interval)
        try {
          return { report: await app.dbBackups.verify(params.id, body) }
        } finally {
          clearInterval(timer)
        }
      })
    }
  )

  app.post<ById & { Body: Pick<RestoreOptions, 'skip'> }>(
    '/api/backups/:id/preview',
    async ({ params, body }, reply) => {
      await app.dbBackups.summary(params.id)
      return sendLines(reply, async (send) => {
        const options = { skip: body.skip, dryRun: true, onChange: send }
        const { finished } = await app.dbBackups.restore({ id: params.id }, options)
        return { outcome: await finished }
      })
    }
  )

  app.register(async (uploads) => {
    uploads.removeAllContentTypeParsers()
    uploads.addContentTypeParser('application/json', (_request, payload, done) => done(null, payload))
    uploads.put<{ Querystring: Record<string, string | string[] | undefined> }>(
      '/api/preview',
      async ({ body, query }, reply) => {
        const skip = { system: listOf(query.skip_system), components: listOf(query.skip_components) }
        const { tx_id } = await app.dbBackups.restore({ body: body as Readable }, { dryRun: true, skip })
        return reply.code(202).send({ message: 'in-progress', tx_id })
      }
    )
  })
}

const listOf = (value: string | string[] | undefined): string[] => (value === undefined ? [] : [value].flat())

/** Sends lines as they come, and what `run` returns as the last one, or its error. */
function sendLines(
  reply: FastifyReply,
  run: (send: (line: object) => void) => Promise<object>
): FastifyReply {
  const lines = new Readable({ read() {} })
  const send = (line: object) => void lines.push(`${JSON.stringify(line)}\n`)
  run(send)
    .catch(({ code, message, position }) => ({ error: { code, message, position } }))
    .then(send)
    .finally(() => lines.push(null))
  return reply.type('application/x-ndjson').send(lines)
}
