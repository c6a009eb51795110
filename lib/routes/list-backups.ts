import type { FastifyReply } from 'fastify'
import { backupIds } from '../schemas/backup.js'
import { NoQuery } from '../schemas/common.js'
import { errorReplies } from '../schemas/errors.js'
import { sharedTurn } from '../waits/steps.js'
import type { Routes } from './context.js'

/** API 6: `GET /backups` */
export const listBackups: Routes = async (scope, { operations, describe }) => {
  scope.get(
    '',
    {
      exposeHeadRoute: false,
      schema: {
        ...describe('listBackups'),
        summary: 'Get the ids of all backups',
        tags: ['backups'],
        querystring: NoQuery,
        response: { 200: backupIds, ...errorReplies() }
      }
    },
    async (_request, reply) => {
      const ids = await operations.sharedList()
      // There may be many lists at once, with thousands of ids each.
      await sharedTurn()
      return sendList(reply, ids)
    }
  )
}

/** Sends the bytes of a list as they are; the route's schema describes them. */
const sendList = (reply: FastifyReply, ids: readonly string[]): FastifyReply =>
  reply.type('application/json; charset=utf-8').send(replyOf(ids))

/** Replies by the lists that they tell. */
const replies = new WeakMap<readonly string[], Buffer>()

/** Returns the reply shared by all who get this list: slow readers hold its bytes only once. */
function replyOf(ids: readonly string[]): Buffer {
  const known = replies.get(ids)
  if (known) return known
  const reply = Buffer.from(JSON.stringify({ ids }))
  replies.set(ids, reply)
  return reply
}
