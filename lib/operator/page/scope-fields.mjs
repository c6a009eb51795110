import { el } from './element.mjs'
import { DATABASES, nameOf } from './names.mjs'

const NOTHING_MEANT = 'Fill in ids, types or a selector; or choose all documents, or none.'

const WHICH = { all: 'All documents', only: 'Only some', exclude: 'All but some', none: 'None' }

const part = document.getElementById('scope')

/** The fields of each database. */
const fields = Object.fromEntries(DATABASES.map((database) => [database, fieldsOf(database)]))

function fieldsOf(database) {
  const idOf = (name) => `scope-${database}-${name}`
  const label = (name, text, classes = 'field') => el('label', { class: classes, for: idOf(name) }, text)
  const area = (name, rows) => el('textarea', { id: idOf(name), rows, spellcheck: 'false' })
  const which = el(
    'select',
    { id: idOf('which') },
    ...Object.entries(WHICH).map(([value, text]) => el('option', { value }, text))
  )
  const [ids, types, selector] = [area('ids', 2), area('types', 2), area('selector', 3)]
  const meant = el(
    'div',
    { hidden: true },
    ...[label('ids', 'Ids'), ids, label('types', 'Types'), types, label('selector', 'Selector'), selector]
  )
  const legend = el('legend', { class: 'field' })
  part
    .querySelector('[data-databases]')
    .append(
      el(
        'fieldset',
        { class: 'scope' },
        legend,
        label('which', 'Documents to restore', 'hidden'),
        which,
        meant
      )
    )
  const showMeant = () => {
    meant.hidden = which.value === 'all' || which.value === 'none'
  }
  which.addEventListener('change', showMeant)
  return { which, ids, types, selector, legend, showMeant }
}

/** Resets the fields. Hides them for a file, which can only be sent with ids to leave alone. */
export function resetScope(isStored) {
  part.hidden = !isStored
  part.querySelector('details').open = false
  for (const database of DATABASES) {
    fields[database].legend.textContent = nameOf(database)
    fields[database].showMeant()
  }
}

/** Thrown for a field whose value cannot be used. */
export class FieldError extends Error {
  constructor(field, message) {
    super(message)
    this.field = field
  }
}

/**
 * Returns which documents a restore is about: `only`, `exclude` and `exact`, as far as they are chosen.
 * @throws FieldError
 */
export function readScope() {
  if (part.hidden) return {}
  const chosen = Object.fromEntries(DATABASES.map((database) => [database, fields[database].which.value]))
  const [only, exclude] = [{}, {}]
  for (const database of DATABASES) {
    if (chosen[database] === 'only') only[database] = readChoice(fields[database])
    else if (chosen[database] !== 'none') only[database] = {}
    if (chosen[database] === 'exclude') exclude[database] = readChoice(fields[database])
  }
  if (Object.keys(only).length === 0)
    throw new FieldError(fields.components.which, 'Choose documents of one database at least.')
  const isPart = Object.values(chosen).some((which) => which === 'only' || which === 'none')
  return {
    ...(isPart && { only }),
    ...(Object.keys(exclude).length > 0 && { exclude }),
    ...(part.querySelector('[name=exact]').checked && { exact: true })
  }
}

function readChoice({ ids, types, selector }) {
  const choice = {
    ...(linesOf(ids).length > 0 && { ids: linesOf(ids) }),
    ...(linesOf(types).length > 0 && { types: linesOf(types) }),
    ...(selector.value.trim() !== '' && { selector: readSelector(selector) })
  }
  if (Object.keys(choice).length === 0) throw new FieldError(ids, NOTHING_MEANT)
  return choice
}

/** Returns the lines of a field, trimmed, each once, without empty ones. */
export const linesOf = ({ value }) => [
  ...new Set(
    value
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => line !== '')
  )
]

function readSelector(field) {
  let selector
  try {
    selector = JSON.parse(field.value)
  } catch (error) {
    throw new FieldError(field, `This is not JSON: ${error.message}`)
  }
  if (typeof selector === 'object' && selector !== null && !Array.isArray(selector)) return selector
  throw new FieldError(field, 'The selector must be a JSON object, for example {"type": "fabric-peer"}.')
}

/** Returns an error for the field that the server's refusal names; `undefined` when it names none. */
export function fieldErrorOf({ status, message }) {
  const found = /^(?:options|body)\/(?:only|exclude)\/(\w+)(?:\/(ids|types|selector))?/.exec(message)
  const refused = found && fields[found[1]]
  if (status !== 400 || !refused) return undefined
  return new FieldError(
    refused[found[2] ?? 'which'],
    message.slice(message.indexOf(found[1]) + found[1].length + 1)
  )
}

/** Opens the details that hold a field, so that it can be focused. */
export function reveal(field) {
  if (part.contains(field)) part.querySelector('details').open = true
}

/** Says which documents are chosen; returns an empty text when all are. */
export function scopeText({ only, exclude = {}, exact }) {
  const told = DATABASES.flatMap((database) => {
    if (only && !only[database]) return [`nothing of ${nameOf(database)}`]
    if (exclude[database]) return [`${nameOf(database)} but for ${choiceText(exclude[database])}`]
    if (only && Object.keys(only[database]).length > 0)
      return [`of ${nameOf(database)} only ${choiceText(only[database])}`]
    return []
  })
  return [
    ...(told.length > 0 ? [`Chosen: ${told.join('; ')}.`] : []),
    ...(exact ? ['Documents that the backup does not hold would be deleted.'] : [])
  ].join(' ')
}

const choiceText = ({ ids, types, selector }) =>
  [
    ids && `ids ${ids.join(', ')}`,
    types && `types ${types.join(', ')}`,
    selector && `what matches ${JSON.stringify(selector)}`
  ]
    .filter(Boolean)
    .join(' with ')
