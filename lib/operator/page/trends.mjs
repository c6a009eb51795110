import { stateOf, sum } from './backup-list.mjs'
import { el, svg } from './element.mjs'
import { figuresTable } from './figures-table.mjs'
import { bytes, count, day, duration, minute, number } from './format.mjs'
import { nameOf } from './names.mjs'

const section = document.getElementById('trends')
const DAY = 24 * 3_600_000
/** Days that the strip shows at most. */
const DAYS = 60
const [WIDTH, HEIGHT] = [300, 60]
/** Words for a day, by the state of its best backup. */
const DAY_WORDS = { complete: 'a complete backup', failed: 'only failed ones', none: 'no backup' }

const documentsIn = ({ dbs }, database) => dbs[database]?.doc_count

// Athena's backups, and those of earlier versions, lack some of these figures.
const lengthOf = ({ start_timestamp: from, end_timestamp: to }) => (to === undefined ? undefined : to - from)
const sizeOf = (backup) => sum(backup, 'raw_bytes')

/** Writes a figure; `undefined` for one that is not known. */
const written = (value, write) => (value === undefined ? undefined : write(value))

const databasesOf = (backups) => [...new Set(backups.flatMap(({ dbs }) => Object.keys(dbs)))]

/**
 * Shows how the listed backups, newest first, have changed over time. Each drawing has its figures in a table.
 * @param hasOlder whether there are backups before those that are listed
 */
export function showTrends(backups, { hasOlder }) {
  const ended = backups.filter((backup) => stateOf(backup) !== 'running').reverse()
  const complete = ended.filter((backup) => stateOf(backup) === 'complete')
  section.hidden = ended.length < 2
  if (section.hidden) return
  section.querySelector('[data-strip]').replaceChildren(...strip(daysOf(ended, hasOlder)))
  const databases = databasesOf(complete)
  const documents = (backup) => databases.map((database) => documentsIn(backup, database))
  section.querySelector('[data-charts]').replaceChildren(
    chart('Documents', complete, documents, number),
    chart('Size as JSON', complete, (backup) => [sizeOf(backup)], bytes),
    chart('Duration', complete, (backup) => [lengthOf(backup)], duration)
  )
  section.querySelector('[data-legend]').replaceChildren(...legend(databases))
  section.querySelector('[data-table]').replaceChildren(table(ended.reverse(), databases))
}

/**
 * Returns up to {@link DAYS} days since the first backup, each with the state of its best one. Leaves out today while
 * it has none, and the first day if an older backup of it may be complete.
 */
function daysOf(backups, hasOlder) {
  const states = new Map()
  for (const backup of backups) {
    const on = startOfDay(backup.start_timestamp)
    if (states.get(on) !== 'complete') states.set(on, stateOf(backup))
  }
  const today = startOfDay(Date.now())
  const first = Math.max(startOfDay(backups[0].start_timestamp), startOfDay(today - (DAYS - 1) * DAY))
  const days = []
  // Not every day has 24 hours, but 36 hours after its beginning, the next day has begun.
  for (let on = first; on <= today; on = startOfDay(on + 1.5 * DAY))
    if (on < today || states.has(on)) days.push({ on, state: states.get(on) ?? 'none' })
  const mayBeComplete =
    hasOlder && days[0]?.state === 'failed' && days[0].on === startOfDay(backups[0].start_timestamp)
  return mayBeComplete ? days.slice(1) : days
}

function startOfDay(ms) {
  const date = new Date(ms)
  return new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime()
}

function strip(days) {
  if (days.length === 0) return []
  const having = (wanted) => days.filter(({ state }) => state === wanted).length
  const text = `${count(days.length, 'day')}: ${having('complete')} with a complete backup, ${having('failed')} with failed ones only, ${having('none')} without`
  const step = WIDTH / days.length
  const drawing = svg(
    'svg',
    { viewBox: `0 0 ${WIDTH} 12`, preserveAspectRatio: 'none', class: 'strip', 'aria-hidden': 'true' },
    ...days.map(({ on, state }, i) =>
      svg(
        'rect',
        {
          x: i * step,
          y: state === 'complete' ? 0 : 6,
          width: step * 0.8,
          height: state === 'complete' ? 12 : 6,
          class: state
        },
        svg('title', {}, `${day(on)}: ${DAY_WORDS[state]}`)
      )
    )
  )
  return [el('p', { class: 'fact' }, text), drawing]
}

/**
 * Returns a chart of one bar for each backup that tells a value, stacked where it has several.
 * @param write writes a value
 */
function chart(name, backups, valuesOf, write) {
  const step = WIDTH / Math.max(backups.length, 1)
  const known = backups
    .map((backup, i) => ({ x: i * step, at: backup.start_timestamp, values: valuesOf(backup) }))
    .filter(({ values }) => values.every(Number.isFinite))
    .map((one) => ({ ...one, total: one.values.reduce((total, value) => total + value, 0) }))
  const totals = known.map(({ total }) => total)
  const most = Math.max(...totals, 1)
  const bars = known.map(({ x, at, values, total }) => {
    let top = HEIGHT
    const parts = values.map((value, part) => {
      const height = (value / most) * HEIGHT
      top -= height
      return svg('rect', { x, y: top, width: step * 0.8, height, class: `part-${part}` })
    })
    return svg('g', {}, svg('title', {}, `${minute(at)}: ${write(total)}`), ...parts)
  })
  const range = () =>
    `from ${write(Math.min(...totals))} to ${write(Math.max(...totals))}, ${write(totals.at(-1))} in the last`
  return el(
    'figure',
    {},
    el(
      'figcaption',
      {},
      el('strong', {}, name),
      el('span', { class: 'muted' }, totals.length > 0 ? range() : 'not known')
    ),
    svg(
      'svg',
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' },
      ...bars
    )
  )
}

/** Returns the legend: the colour of each database in the stacked bars. */
const legend = (databases) =>
  databases.map((database, part) =>
    el(
      'li',
      {},
      svg(
        'svg',
        { viewBox: '0 0 1 1', 'aria-hidden': 'true' },
        svg('rect', { width: 1, height: 1, class: `part-${part}` })
      ),
      nameOf(database)
    )
  )

const table = (backups, databases) =>
  figuresTable(
    'The backups over time',
    ['Made', ...databases.map(nameOf), 'Size as JSON', 'Duration'],
    backups.map((backup) => {
      const made = minute(backup.start_timestamp)
      if (stateOf(backup) !== 'complete')
        return [`${made}: failed`, ...databases.map(() => undefined), undefined, undefined]
      const documents = databases.map((database) => written(documentsIn(backup, database), number))
      return [made, ...documents, written(sizeOf(backup), bytes), written(lengthOf(backup), duration)]
    })
  )
