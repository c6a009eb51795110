import { setTimeout as sleep } from 'node:timers/promises'
import type { Static } from '@sinclair/typebox'
import type { RunningOperation } from '../../../types/index.js'
import type { OperatorRoutes } from '../context.js'
import { replyLines } from '../lines.js'
import { ById, CancelBody, DiffQuery, MOST_BYTES, PruneBody, StartBody, VerifyBody } from '../schemas.js'

/** Milliseconds between two looks whether a verification has begun. */
const LOOK_INTERVAL = 25

/** Routes that make, read, compare, verify and remove backups, and that cancel what runs. */
export const backupRoutes: OperatorRoutes = async (scope, { backups }) => {
  const bodyLimit = MOST_BYTES

  scope.post('/backups', { bodyLimit, schema: { body: StartBody } }, async (request, reply) => {
    const { id } = await backups.start({ ...request.body, requester: request.backupsRequester })
    return reply.code(202).send({ message: 'in-progress', id })
  })

  scope.get('/backups/:id', { schema: { params: ById } }, async ({ params }) => backups.summary(params.id))

  scope.delete('/backups/:id', { schema: { params: ById } }, async ({ params }) => backups.remove(params.id))

  scope.post('/prune', { bodyLimit, schema: { body: PruneBody } }, async ({ body }) => backups.prune(body))

  scope.get(
    '/backups/:id/diff',
    { schema: { params: ById, querystring: DiffQuery } },
    async ({ params, query }, reply) => {
      const { against, values = false } = query
      return replyLines(reply, async ({ write, signal }) => {
        let changes = 0
        for await (const change of backups.diff(params.id, { against, values, signal })) {
          await write(change)
          changes++
        }
        return { end: true, changes }
      })
    }
  )

  scope.post(
    '/backups/:id/verify',
    { bodyLimit, schema: { params: ById, body: VerifyBody } },
    async ({ params, body }, reply) =>
      replyLines(reply, async ({ write, signal }) => {
        const earlier = new Set(backups.running.map(({ id }) => id))
        const verifying = backups.verify(params.id, { ...body, signal })
        const begun = await untilBegun(verifying, () =>
          backups.running.find((one) => !earlier.has(one.id) && isOf(one, params.id, body))
        )
        if (begun) await write({ running: true, id: begun.id })
        return { report: await verifying }
      })
  )

  scope.post('/cancel', { bodyLimit, schema: { body: CancelBody } }, async (request, reply) => {
    const { id } = await backups.cancel(request.body.id, { requester: request.backupsRequester })
    return reply.code(202).send({ message: 'cancelling', id })
  })
}

/**
 * Returns whether an operation is a verification that was asked for, and not one that the schedule makes: of those
 * without the lease, an instance runs one at a time, and of those with it, a console.
 */
function isOf(
  { operation, backup_id, depth, lease }: RunningOperation,
  id: string,
  { depth: asked = 'data' }: Static<typeof VerifyBody>
): boolean {
  const isKind = lease === (asked === 'restore' ? true : undefined)
  return operation === 'verify' && backup_id === id && depth === asked && isKind
}

/** Returns the operation as soon as `find` does; nothing when `work` ends before. @throws what `work` throws before */
async function untilBegun(
  work: Promise<unknown>,
  find: () => RunningOperation | undefined
): Promise<RunningOperation | undefined> {
  const over = work.then(() => true)
  for (;;) {
    const found = find()
    if (found) {
      // The caller awaits `work` itself.
      over.catch(() => undefined)
      return found
    }
    if (await Promise.race([over, sleep(LOOK_INTERVAL, false)])) return undefined
  }
}
