import { backupUrl } from './api.mjs'
import { el, mark } from './element.mjs'
import { age, ahead, bytes, count, dateTime, duration, number } from './format.mjs'
import { keptText } from './kept.mjs'
import { kindOf, readingOf } from './kind.mjs'
import { listItems } from './list-items.mjs'
import { nameOf } from './names.mjs'

const table = document.getElementById('backups')
const body = table.tBodies[0]
// Narrow screens lay the table out as blocks, which would lose these roles.
const ROLES = { table: 'table', thead: 'rowgroup', tbody: 'rowgroup', tr: 'row', th: 'columnheader' }
for (const part of [table, ...table.querySelectorAll('*')]) {
  const role = ROLES[part.localName]
  if (role) part.setAttribute('role', role)
}
const STATES = { complete: 'Complete', running: 'In progress', failed: 'Failed' }

/** Content of each row, to replace a row only when its content changes. */
const shown = new WeakMap()

export function stateOf({ in_progress, error }) {
  if (in_progress) return 'running'
  return error ? 'failed' : 'complete'
}

/** Returns the sum of a member over a backup's databases, or `undefined` when one lacks it, as in old backups. */
export function sum({ dbs }, member) {
  const values = Object.values(dbs).map((database) => database[member])
  return values.every(Number.isFinite) ? values.reduce((total, value) => total + value, 0) : undefined
}

/**
 * Shows the backups, newest first. Keeps unchanged rows, and with them focus and open details.
 * @param pruning what pruning would do, if that is known
 */
export function showBackups(backups, pruning) {
  table.hidden = backups.length === 0
  document.getElementById('empty').hidden = backups.length > 0
  const old = new Map([...body.rows].map((row) => [row.dataset.id, row]))
  const rows = backups.map((backup) => {
    const before = old.get(backup.id)
    const kept = keptText(pruning, backup)
    const content = JSON.stringify([backup, kept])
    if (before && shown.get(before) === content) return before
    const row = rowOf(backup, kept)
    shown.set(row, content)
    if (before) keepPlace(before, row)
    return row
  })
  for (const row of body.rows) if (!rows.includes(row)) row.remove()
  for (const [index, row] of rows.entries()) {
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null)
  }
  showAges()
}

/** Replaces a row, and keeps its open details and the focus. */
function keepPlace(before, row) {
  row.querySelector('details').open = before.querySelector('details').open
  const { action } = before.contains(document.activeElement) ? document.activeElement.dataset : {}
  before.replaceWith(row)
  if (action) focusAction(row.dataset.id, action)
}

/** Focuses an action of a backup, if the list still has it. */
export function focusAction(id, action) {
  body.querySelector(`[data-id="${id}"] [data-action="${action}"]`)?.focus()
}

/** Updates all ages on the page, and the times that lie ahead. */
export function showAges() {
  for (const time of document.querySelectorAll('time[data-age]'))
    time.textContent = age(Number(time.dataset.age))
  for (const time of document.querySelectorAll('time[data-ahead]'))
    time.textContent = ahead(Number(time.dataset.ahead))
}

export const ageOf = (ms) =>
  el('time', { datetime: new Date(ms).toISOString(), title: dateTime(ms), 'data-age': ms }, age(ms))

export const aheadOf = (ms) =>
  el('time', { datetime: new Date(ms).toISOString(), title: dateTime(ms), 'data-ahead': ms }, ahead(ms))

function rowOf(backup, kept) {
  const state = stateOf(backup)
  const stored = sum(backup, 'stored_bytes')
  const cell = (label, attributes, ...children) =>
    el('td', { role: 'cell', 'data-label': label, ...attributes }, ...children)
  const figure = (label, value) =>
    value === undefined
      ? cell(
          label,
          { class: 'number none' },
          el('span', { 'aria-hidden': 'true' }, '–'),
          el('span', { class: 'hidden' }, 'unknown')
        )
      : cell(label, { class: 'number' }, value)
  return el(
    'tr',
    { role: 'row', 'data-id': backup.id },
    cell('State', {}, el('span', { class: `badge ${state}` }, mark(state), STATES[state])),
    el(
      'th',
      { scope: 'row', role: 'rowheader', class: 'made' },
      el('span', { class: 'age' }, ageOf(backup.start_timestamp)),
      ' ',
      el('span', { class: 'muted' }, dateTime(backup.start_timestamp)),
      backup.note && el('span', { class: 'note' }, backup.note),
      backup.protected && el('span', { class: 'badge protected' }, 'Protected'),
      backup.damaged && el('span', { class: 'badge failed' }, 'Damaged'),
      backup.error && el('span', { class: 'reason' }, backup.error),
      backup.unreadable_count > 0 ? el('span', { class: 'reason' }, unreadText(backup)) : undefined,
      backup.missing_databases ? el('span', { class: 'reason' }, missingText(backup)) : undefined,
      factOf(kindOf(backup)),
      factOf(kept),
      detailsOf(backup)
    ),
    figure('Documents', state === 'failed' ? undefined : number(backup.doc_count)),
    figure('Size', state === 'complete' && stored !== undefined ? bytes(stored) : undefined),
    figure('Added', backup.added_bytes === undefined ? undefined : bytes(backup.added_bytes)),
    el('td', { role: 'cell', class: 'actions' }, el('div', { class: 'buttons' }, ...actionsOf(backup, state)))
  )
}

const factOf = (text) => text && el('span', { class: 'fact' }, text)

function actionsOf(backup, state) {
  const named = (text) => [
    text,
    el('span', { class: 'hidden' }, ` the backup of ${dateTime(backup.start_timestamp)}`)
  ]
  const button = (action, text) =>
    el('button', { type: 'button', class: 'small', 'data-action': action }, ...named(text))
  const link = { href: backupUrl(backup.id), download: `${backup.id}.json`, 'data-action': 'download' }
  // A link cannot be off.
  const download =
    state === 'complete'
      ? el('a', { class: 'button small', ...link }, ...named('Download'))
      : button('download', 'Download')
  return [
    download,
    button('append', 'Append…'),
    button('restore', 'Restore…'),
    button('verify', 'Verify…'),
    button('compare', 'Compare…'),
    button('copy', 'Copy id'),
    button('remove', 'Delete…')
  ]
}

const unreadText = ({ unreadable_count }) =>
  `Without ${count(unreadable_count, 'document')} that could not be read`

const missingText = ({ missing_databases }) =>
  `Without ${missing_databases.join(', ')}: no such database. Check its name in the server's configuration.`

/** How many unreadable documents the details of a backup name. */
const NAMED = 20

function unreadableList(unreadable, total) {
  const itemOf = ({ id, id_truncated, reason }) =>
    el('li', {}, el('code', {}, id_truncated ? `${id}…` : id), `: ${reason}`)
  return el('ul', { class: 'unreadable' }, ...listItems(unreadable.slice(0, NAMED), total, itemOf))
}

function detailsOf(backup) {
  const raw = sum(backup, 'raw_bytes')
  const facts = [['Id', el('code', {}, backup.id)]]
  const { name, uuid } = backup.requester ?? {}
  if (name ?? uuid) facts.push(['Requested by', name ?? uuid])
  if (backup.end_timestamp) facts.push(['Duration', duration(backup.end_timestamp - backup.start_timestamp)])
  for (const [database, summary] of Object.entries(backup.dbs)) {
    const { doc_count, conflict_count, unreadable = [], unreadable_count } = summary
    if (!Number.isFinite(doc_count)) continue
    if (summary.missing) {
      facts.push([nameOf(database), 'did not exist'])
      continue
    }
    const conflicts = conflict_count > 0 ? `, ${number(conflict_count)} of them with conflicts` : ''
    facts.push([nameOf(database), count(doc_count, 'document') + conflicts + readingOf(summary)])
    if (unreadable.length > 0)
      facts.push([`${nameOf(database)}: not readable`, unreadableList(unreadable, unreadable_count)])
  }
  if (raw !== undefined && !backup.error && !backup.in_progress) facts.push(['As JSON', bytes(raw)])
  const versions = Object.entries(backup.ibp_versions ?? {}).map(([name, value]) => `${name} ${value}`)
  if (versions.length > 0) facts.push(['Versions', versions.join(', ')])
  facts.push(['Attachments', backup.attachments.length > 0 ? backup.attachments.join(', ') : 'none'])
  if (backup.content_sha256) facts.push(['Checksum', checksumOf(backup)])
  return el(
    'details',
    {},
    el('summary', {}, 'Details'),
    el('dl', {}, ...facts.flatMap(([term, value]) => [el('dt', {}, term), el('dd', {}, value)]))
  )
}

const checksumOf = ({ content_sha256: checksum, start_timestamp: at }) =>
  el(
    'div',
    { class: 'checksum' },
    el('code', {}, checksum),
    el(
      'button',
      { type: 'button', class: 'small', 'data-action': 'copy-checksum' },
      'Copy checksum',
      el('span', { class: 'hidden' }, ` of the backup of ${dateTime(at)}`)
    )
  )
