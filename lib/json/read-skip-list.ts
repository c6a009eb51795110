const SINGLE_QUOTED = /^\[\s*(?:'(?:[^'\\]|\\.)*'\s*(?:,\s*'(?:[^'\\]|\\.)*'\s*)*)?\]$/s
const SINGLE_QUOTED_ELEMENT = /'((?:[^'\\]|\\.)*)'/gs

/**
 * Reads ids of documents in every spelling that clients use: a JSON array, the same with single quotes, one id or
 * several with commas between them, and any of these in quotes. An id that has a comma, or begins or ends with white
 * space or a quote, goes in an array.
 *
 * @returns `undefined` when the text is none of these
 */
export function readSkipList(text: string): string[] | undefined {
  const list = text.trim()
  if (list.startsWith('[')) return readArray(list)
  if (!/^["']/.test(list)) return readBare(list)
  const quoted = readArray(`[${list}]`)
  if (quoted && quoted.length > 1) return quoted
  const inner = unwrap(list)
  return inner.startsWith('[') ? readArray(inner) : readBare(inner)
}

/** Returns the text without the quotes around it; nothing when there is only one. */
function unwrap(text: string): string {
  if (text.length < 2 || !text.endsWith(text[0])) return ''
  if (text[0] === '"') {
    try {
      return String(JSON.parse(text)).trim()
    } catch {
      // Quotes inside that are not escaped: "["a"]".
    }
  }
  return text.slice(1, -1).trim()
}

function readBare(text: string): string[] | undefined {
  const ids = text.split(',').map((id) => id.trim())
  return ids.every((id) => /^[^"'[{]/.test(id)) ? ids : undefined
}

function readArray(text: string): string[] | undefined {
  let list: unknown
  try {
    list = JSON.parse(text)
  } catch {
    if (!SINGLE_QUOTED.test(text)) return undefined
    list = [...text.matchAll(SINGLE_QUOTED_ELEMENT)].map(([, id]) => id.replace(/\\(.)/gs, '$1'))
  }
  return Array.isArray(list) && list.every((id) => typeof id === 'string' && id !== '') ? list : undefined
}
