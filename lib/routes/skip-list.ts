import { setImmediate as turn } from 'node:timers/promises'
import type { Static } from '@sinclair/typebox'
import type { LogicalDatabase } from '../../types/databases.js'
import { InvalidParameterError } from '../errors.js'
import { readSkipList } from '../json/read-skip-list.js'
import type { RestoreQuery } from '../schemas/restore.js'
import { inTurns, type Steps } from '../waits/steps.js'

/** Reads the ids not to restore, by database. @throws InvalidParameterError that names the parameter */
export async function parseSkipLists(
  query: Static<typeof RestoreQuery>
): Promise<Partial<Record<LogicalDatabase, string[]>>> {
  // Where a host takes long request lines, decoding one has used up this turn of the event loop.
  await turn()
  return {
    system: await inTurns(parseSkipList('skip_system', query.skip_system)),
    components: await inTurns(parseSkipList('skip_components', query.skip_components))
  }
}

/** Reads a parameter, which may be repeated, see {@link readSkipList}. @throws InvalidParameterError */
export function* parseSkipList(parameter: string, value: string | string[] = []): Steps<string[]> {
  const all: string[] = []
  for (const text of [value].flat()) {
    const ids = yield* readSkipList(text)
    if (!ids) {
      throw new InvalidParameterError(
        `querystring/${parameter} must be document ids: a JSON array such as ["abcd"], or ids with commas between them`
      )
    }
    for (const id of ids) all.push(id)
    yield
  }
  return all
}
