import type { Steps } from '../waits/steps.js'
import { parsed } from './parsed.js'

const SINGLE_QUOTED = /^\[\s*(?:'(?:[^'\\]|\\.)*'\s*(?:,\s*'(?:[^'\\]|\\.)*'\s*)*)?\]$/s
const SINGLE_QUOTED_ELEMENT = /'((?:[^'\\]|\\.)*)'/gs

/**
 * Reads ids from a JSON array, or one with single quotes, or from ids with commas between them, with or without quotes.
 * An id with a comma, or with white space or a quote at an end, needs an array. @returns `undefined` for other text
 */
export function* readSkipList(text: string): Steps<string[] | undefined> {
  const list = text.trim()
  if (list.startsWith('[')) return yield* readArray(list)
  if (!/^["']/.test(list)) return yield* readBare(list)
  const quoted = yield* readArray(`[${list}]`)
  if (quoted && quoted.length > 1) return quoted
  const inner = unwrap(list)
  return yield* inner.startsWith('[') ? readArray(inner) : readBare(inner)
}

/** Returns the text without the quotes around it; an empty text if they do not match. */
function unwrap(text: string): string {
  if (text.length < 2 || !text.endsWith(text[0])) return ''
  if (text[0] === '"') {
    try {
      return String(JSON.parse(text)).trim()
    } catch {
      // The quotes inside are not escaped: "["a"]".
    }
  }
  return text.slice(1, -1).trim()
}

function* readBare(text: string): Steps<string[] | undefined> {
  const ids: string[] = []
  for (const part of text.split(',')) {
    const id = part.trim()
    if (!/^[^"'[{]/.test(id)) return undefined
    ids.push(id)
    yield
  }
  return ids
}

function* readArray(text: string): Steps<string[] | undefined> {
  const list = parsed(text) ?? (yield* readSingleQuoted(text))
  yield
  return Array.isArray(list) && list.every((id) => typeof id === 'string' && id !== '') ? list : undefined
}

function* readSingleQuoted(text: string): Steps<string[] | undefined> {
  if (!SINGLE_QUOTED.test(text)) return undefined
  yield
  const ids: string[] = []
  for (const [, id] of text.matchAll(SINGLE_QUOTED_ELEMENT)) {
    ids.push(id.replace(/\\(.)/gs, '$1'))
    yield
  }
  return ids
}
