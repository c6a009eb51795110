/** Lists what is mutated, and which tests have to detect it. */

export interface Room {
  /** Prefixes of the paths of its files. */
  files: readonly string[]
  /** Names of test files, without `test/` and `.test.ts`. */
  tests: readonly string[]
}

export const ROOMS: Record<string, Room> = {
  repository: {
    files: ['lib/repository/'],
    tests: [
      'backup',
      'get-and-list',
      'backup-ids',
      'append',
      'append-queue',
      'unreadable',
      'damaged',
      'legacy',
      'reserved-ids',
      'places',
      'deleted-header',
      'end-of-backup',
      'shared-chunks',
      'prune',
      'remove',
      'reliability/interrupted-removals',
      'repository-elsewhere',
      'chunk-codec',
      'get-range',
      'pieces',
      'large-chunks',
      'chunk-writes',
      'lossless'
    ]
  },
  restore: {
    files: ['lib/restore/'],
    tests: [
      'design-documents-last',
      'restore-upload',
      'restore-by-id',
      'target-table',
      'write-log',
      'document-batch',
      'exact',
      'skip-unknown',
      'conflicts',
      'refused-documents',
      'restore-beside-writer',
      'large-attachments',
      'large-writes',
      'compressed-attachments',
      'settings-documents',
      'restore-lagging-copies',
      'many-attachments',
      'lossless'
    ]
  },
  operations: {
    files: ['lib/operations/'],
    tests: [
      'missing-databases',
      'one-at-a-time',
      'backup',
      'restore-upload',
      'restore-by-id',
      'events',
      'append-queue',
      'changing-settings',
      'client-webhook',
      'webhook-redelivery',
      'decorator-arguments',
      'get-running-backup',
      'close-during-download',
      'host-timeouts',
      'bounded-texts',
      'outbox',
      'deleted-header',
      'lease',
      'recorded-ends',
      'third-kind',
      'prune',
      'remove',
      'reliability/interrupted-removals',
      'lost-lease',
      'stale-lease',
      'late-header'
    ]
  },
  lease: {
    files: ['lib/lease/'],
    tests: [
      'lease-schedules',
      'lease-return',
      'earlier-lease',
      'lease-terms',
      'one-at-a-time',
      'lease',
      'reserved-ids',
      'webhook-redelivery',
      'quorum',
      'third-kind'
    ]
  },
  feed: {
    files: ['lib/couch/feed', 'lib/backup/'],
    tests: [
      'backup',
      'consistency',
      'rewound-feed',
      'changed-source',
      'missing-databases',
      'unreadable',
      'vanished-revision',
      'conflicts',
      'deleted-header',
      'long-rows',
      'compressed-attachments',
      'incomplete-answers',
      'feed',
      'get-running-backup',
      'read-ahead',
      'request-bytes',
      'lossless'
    ]
  },
  retention: {
    files: ['lib/retention/'],
    tests: ['keep-rules', 'keep-calendar', 'keep-athena', 'keep-options', 'kept-until']
  },
  schedule: {
    files: ['lib/schedule/', 'lib/operations/schedule'],
    tests: ['schedule', 'schedule-clock', 'schedule-instances', 'schedule-options']
  },
  webhooks: {
    files: ['lib/webhooks/'],
    tests: ['webhook-addresses', 'webhook-stores', 'client-webhook', 'webhook-redelivery']
  }
}

/** A change that is always tried, whatever the sample: a broken promise that no test once detected. */
export interface FixedMutant {
  room: string
  promise: string
  /** Finds the text to replace, which must occur once in the room. */
  find: RegExp
  replacement: string
}

export const FIXED: readonly FixedMutant[] = [
  {
    room: 'repository',
    promise: 'the layout of stored backups changes only on purpose',
    find: /(?<=\bLAYOUT = )4/,
    replacement: '5'
  },
  {
    room: 'repository',
    promise: 'every chunk that is listed is there at the revision that was written',
    find: /\w+\.get\((\w+)\.id\) === \1\.rev/,
    replacement: 'true'
  },
  {
    room: 'repository',
    promise: 'a header that has ended is not the one of the backup that runs',
    find: /if \(!header\.in_progress\) throw[^\n]*/,
    replacement: ''
  },
  {
    room: 'restore',
    promise: 'design documents are written last',
    find: /(?<=Design documents last[\s\S]{0,120})\[false, true\]/,
    replacement: '[true, false]'
  },
  {
    room: 'restore',
    promise: 'a document that was created is confirmed only when it has no other leaf',
    find: /!branched/,
    replacement: 'true'
  },
  {
    room: 'webhooks',
    promise: 'a webhook is tried again after a 500',
    find: /status >= 500/,
    replacement: 'status > 500'
  },
  {
    room: 'webhooks',
    promise: 'a webhook is tried again after a 429',
    find: /status === 429/,
    replacement: 'false'
  },
  {
    room: 'webhooks',
    promise: 'a webhook is tried again after a 408',
    find: /status === 408/,
    replacement: 'false'
  },
  {
    room: 'webhooks',
    promise: 'a webhook is not tried again after another 4xx',
    find: /status >= 500/,
    replacement: 'status >= 400'
  }
]

/** Mutants that no test has to detect. They are not made. */
export interface Accepted {
  /** Matches the line that is changed. */
  line: RegExp
  /** Matches the description of the mutant. */
  what: RegExp
  /** The reason why the mutant is accepted. */
  why: string
}

export const ACCEPTED: readonly Accepted[] = [
  {
    line: /await (turnAfter|sharedTurn)\(/,
    what: /^await .* -> /,
    why: 'lets others have their turn: only the measurements of test/reliability/loop-turns* can tell'
  },
  {
    line: /buffers\.give\(/,
    what: /\(removed\)|;/,
    why: 'memory that is not given back is allocated anew: only the measurements of test/serial can tell'
  },
  {
    line: /newest > known \? newest : known/,
    what: /^> -> >=/,
    why: 'of two equal numbers either is the larger one'
  },
  {
    line: /index - from >= TAKEN_IDS/,
    what: /^>= -> >/,
    why: 'how often exactly is tried before the database is not believed is no promise'
  },
  {
    line: /const isThere = /,
    what: /./,
    why: 'bytes that are there already may be copied once more onto themselves'
  },
  {
    line: /await progress\.settle\(\)/,
    what: /./,
    why: 'changes of one header take turns: its end waits for the progress under way in any case'
  },
  {
    line: /await this\.#removeFreed\(\)/,
    what: /^await .* -> this/,
    why: 'leaves that say nothing go a moment later; the call never fails'
  },
  {
    line: /FIRST_WAIT \* 2 \*\*|wait \* \(0\.25 \+ 0\.75/,
    what: /^(?!await)/,
    why: 'how long exactly is waited before the next claim is no promise'
  },
  {
    line: /performance\.now\(\) [<>]=? |startedAt <= this\.#validUntil|now - since >= this\.#patience/,
    what: /^(> -> >=|>= -> >|< -> <=|<= -> <)$/,
    why: 'of a time that has a fraction of milliseconds, one instant more or less is no promise'
  }
]
