import type { OperatorRoutes } from '../context.js'
import { OverviewQuery } from '../schemas.js'
import { newest } from '../summaries.js'

/** Backups that the overview tells, unless it is asked for more or fewer. */
const LISTED = 25
/** Restores that the overview tells. */
const RESTORES = 20

/** `GET /overview`: everything that the page shows at a glance. `GET /schedule`: the schedule alone. */
export const overview: OperatorRoutes = async (scope, { backups, options, instance }) => {
  scope.get('/overview', { schema: { querystring: OverviewQuery } }, async (request, reply) => {
    const { token } = options.csrf
    const csrf = token && { csrf_token: await token(request, reply) }
    // The history is not worth failing the rest for.
    const restores = backups.restores({ limit: RESTORES }).catch((err: unknown) => {
      request.log.warn({ err }, 'the restores could not be listed')
      return null
    })
    return {
      user: request.backupsRequester?.name,
      instance,
      databases: backups.databases,
      ...(await newest(backups, request.query.limit ?? LISTED)),
      schedule: backups.schedule ?? null,
      running: backups.running,
      restores: await restores,
      ...csrf
    }
  })

  // Asked again and again while something runs: it costs the database nothing.
  scope.get('/running', async () => ({ running: backups.running, instance }))

  scope.get('/schedule', async () => ({ schedule: backups.schedule ?? null }))
}
