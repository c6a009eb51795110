import type { Static } from '@sinclair/typebox'
import type { LogicalDatabase } from '../../types/databases.js'
import { InvalidParameterError } from '../errors.js'
import type { RestoreQuery } from '../schemas/restore.js'

const SINGLE_QUOTED = /^\[\s*(?:'(?:[^'\\]|\\.)*'\s*(?:,\s*'(?:[^'\\]|\\.)*'\s*)*)?\]$/s
const SINGLE_QUOTED_ELEMENT = /'((?:[^'\\]|\\.)*)'/gs

/** Ids not to restore, by database. @throws InvalidParameterError that names the parameter */
export function parseSkipLists(
  query: Static<typeof RestoreQuery>
): Partial<Record<LogicalDatabase, string[]>> {
  return {
    system: parseSkipList('skip_system', query.skip_system),
    components: parseSkipList('skip_components', query.skip_components)
  }
}

/**
 * Reads a skip list in every spelling clients use: a JSON array, the same with single quotes, either of them wrapped
 * in quotes, a repeated parameter, or one bare id.
 *
 * @throws InvalidParameterError (400) that names the parameter
 */
export function parseSkipList(parameter: string, value: string | string[] | undefined): string[] {
  if (value === undefined) return []
  return [value].flat().flatMap((text) => parseOne(parameter, text.trim()))
}

function parseOne(parameter: string, text: string): string[] {
  if (text.startsWith('[')) return parseArray(parameter, text)
  const quote = text[0]
  if (quote === '"' || quote === "'") {
    const inner = unwrap(text, quote)
    if (inner?.startsWith('[')) return parseArray(parameter, inner)
    if (inner) return [inner]
    throw invalid(parameter)
  }
  if (text === '' || text.startsWith('{')) throw invalid(parameter)
  return [text]
}

function unwrap(text: string, quote: string): string | undefined {
  if (text.length < 2 || !text.endsWith(quote)) return undefined
  if (quote === '"') {
    try {
      return String(JSON.parse(text)).trim()
    } catch {
      // Quotes inside that are not escaped: "["a"]".
    }
  }
  return text.slice(1, -1).trim()
}

function parseArray(parameter: string, text: string): string[] {
  let list: unknown
  try {
    list = JSON.parse(text)
  } catch {
    if (!SINGLE_QUOTED.test(text)) throw invalid(parameter)
    list = [...text.matchAll(SINGLE_QUOTED_ELEMENT)].map(([, id]) => id.replace(/\\(.)/gs, '$1'))
  }
  if (!Array.isArray(list) || !list.every((id) => typeof id === 'string' && id !== ''))
    throw invalid(parameter)
  return list
}

const invalid = (parameter: string) =>
  new InvalidParameterError(`querystring/${parameter} must be an array of document ids, such as ["abcd"]`)
