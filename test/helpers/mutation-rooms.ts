/** Lists what is mutated, and which tests have to detect it. */

interface Room {
  /** Prefixes of the paths of its files. */
  files: readonly string[]
  /** Names of test files, without `test/` and `.test.ts`. */
  tests: readonly string[]
}

export const ROOMS: Record<string, Room> = {
  repository: {
    files: ['lib/repository/', 'lib/waits/at-a-time'],
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
      'zlib-output',
      'line-set',
      'line-marks',
      'superseded-versions',
      'chunk-list',
      'unreadable-names',
      'part-ids',
      'document-index',
      'divided-chunks',
      'missing-databases',
      'incremental',
      'incremental-reasons',
      'incremental-concurrent',
      'incremental-histories',
      'prune-histories',
      'prune-clusters',
      'kept-until',
      'backup-notes',
      'get-running-backup',
      'coded-downloads',
      'conflicts',
      'changed-source',
      'recorded-ends',
      'lagging-replicas',
      'large-attachments',
      'lossless',
      'base-choice',
      'sealed',
      'sealed-tampering',
      'verify',
      'verify-sealed',
      'damaged-mark',
      'rekey',
      'copy',
      'copy-conflicts',
      'copy-sealed',
      'copy-faults',
      'diff-sides',
      'shared-repository'
    ]
  },
  diff: {
    files: ['lib/diff/', 'lib/json/differences.ts', 'lib/repository/unshared.ts'],
    tests: ['diff-sides', 'diff', 'diff-histories']
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
      'requests-in-flight',
      'check-attachments',
      'restore-scan',
      'restore-writes',
      'restore-partitions',
      'exact',
      'skip-unknown',
      'conflicts',
      'refused-documents',
      'restore-beside-writer',
      'large-attachments',
      'large-writes',
      'compressed-attachments',
      'settings-documents',
      'restore-lagging-replicas',
      'many-attachments',
      'restore-input',
      'skip-list',
      'odd-documents',
      'odd-attachments',
      'long-attachment-names',
      'long-rows',
      'claimed-content',
      'database-settings',
      'missing-databases',
      'another-console',
      'unreadable',
      'lossless',
      'chosen-documents',
      'safety-backup',
      'selectors',
      'large-room'
    ]
  },
  operations: {
    files: ['lib/operations/'],
    // Without `prune-histories` and `reliability/interrupted-removals`: `prune` and `remove` cover
    // the same files.
    tests: [
      'missing-databases',
      'one-at-a-time',
      'backup',
      'backup-notes',
      'restore-upload',
      'restore-by-id',
      'events',
      'append-queue',
      'changing-settings',
      'client-webhook',
      'decorator-arguments',
      'get-running-backup',
      'close-during-download',
      'host-timeouts',
      'bounded-texts',
      'outbox',
      'webhook-redelivery',
      'deleted-header',
      'recorded-ends',
      'schedule',
      'schedule-instances',
      'third-kind',
      'prune',
      'prune-clocks',
      'prune-clusters',
      'lazy-stream',
      'remove',
      'completed-removals',
      'cancel',
      'kept-until',
      'metrics',
      'stalled-downloads',
      'removed-downloads',
      'lost-lease',
      'stale-lease',
      'late-header',
      'copy',
      'copy-exclusion',
      'verify',
      'verify-runs',
      'rekey',
      'safety-backup',
      'diff',
      'another-server',
      'shared-repository',
      'chosen-documents',
      'large-room'
    ]
  },
  lease: {
    files: ['lib/lease/'],
    // Without `lease` and `webhook-redelivery`, which take a minute and more than twenty seconds. `lease-schedules`
    // takes as long, but nothing else has several replicas accept different claims.
    tests: [
      'earlier-lease',
      'cluster-answers',
      'quorum',
      'third-kind',
      'reserved-ids',
      'stale-lease',
      'lease-terms',
      'lost-lease',
      'lease-return',
      'one-at-a-time',
      'lease-schedules'
    ]
  },
  feed: {
    files: ['lib/couch/feed', 'lib/couch/rows', 'lib/couch/json-rows', 'lib/backup/'],
    tests: [
      'backup',
      'consistency',
      'rewound-feed',
      'changed-source',
      'missing-databases',
      'unreadable-bounds',
      'unreadable',
      'vanished-revision',
      'conflicts',
      'deleted-header',
      'long-rows',
      'compressed-attachments',
      'incomplete-answers',
      'feed',
      'row-lines',
      'events',
      'get-running-backup',
      'read-ahead',
      'request-bytes',
      'base-choice',
      'incremental',
      'incremental-reasons',
      'incremental-concurrent',
      'line-set',
      'replicas',
      'odd-documents',
      'lossless',
      'safety-backup',
      'sealed'
    ]
  },
  retention: {
    files: ['lib/retention/'],
    tests: ['keep-rules', 'keep-calendar', 'keep-athena', 'keep-options', 'kept-until']
  },
  schedule: {
    files: ['lib/schedule/', 'lib/operations/schedule', 'lib/operations/due-runs'],
    tests: ['schedule', 'schedule-clock', 'schedule-instances', 'schedule-options']
  },
  webhooks: {
    files: ['lib/webhooks/'],
    tests: ['webhook-addresses', 'webhook-stores', 'client-webhook', 'webhook-redelivery']
  }
}

/** A change that is always tried, whatever the sample: a broken promise that no test once detected. */
interface FixedMutant {
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
interface Accepted {
  /** Prefixes of the paths of its files: each has such a line. */
  files: readonly string[]
  /** Matches the line that is changed. */
  line: RegExp
  /** Matches the description of the mutant. */
  what: RegExp
  /** The reason why the mutant is accepted. */
  why: string
}

export const ACCEPTED: readonly Accepted[] = [
  {
    files: ['lib/backup/database-backup.ts'],
    line: /^ +failure = undefined$/,
    what: /removed|;/,
    why: 'a body that fails is begun again only if its request is refused at the same moment: no test can time that'
  },
  {
    files: ['lib/repository/legacy-backups.ts'],
    line: /bytes >= LEGACY_BYTES/,
    what: /^>= -> >$/,
    why: 'one byte more or less of 16 MiB is no promise'
  },
  {
    files: ['lib/repository/chunk-contents.ts'],
    line: /const end = found < 0 \?/,
    what: /^(0 -> 1|< -> <=)$/,
    why: 'no line of a chunk is empty, so none ends at its first byte'
  },
  {
    files: ['lib/couch/json-rows.ts'],
    line: /^ {2}longest = 0$/,
    what: /^0 -> 1$/,
    why: 'a row that is one byte longer before others have a turn is no promise'
  },
  {
    files: ['lib/lease/leases.ts'],
    line: /if \(stays \|\| rev !== all\[0\]\.rev\)/,
    what: /^\|\| -> &&$/,
    why: 'a claim that is freed rather than removed goes a moment later, and instances look at all leaves'
  },
  {
    files: ['lib/operations/leftovers.ts'],
    line: /--watched\.looksLeft <= 0/,
    what: /^0 -> 1$/,
    why: 'one look more or less after a backup that has failed is no promise'
  },
  {
    files: ['lib/backup/unreadable.ts'],
    line: /const characters = this\.#lines\.reduce\(/,
    what: /^0 -> 1$/,
    why: 'one character more or less of all ids that cannot be read is no promise'
  },
  {
    files: ['lib/operations/current-databases.ts'],
    line: /this\.#sets\.delete\(other\)/,
    what: /;/,
    why: 'forgets databases on which nothing runs: they are asked nothing, and take memory only'
  },
  {
    files: ['lib/operations/lazy-stream.ts'],
    line: /this\.#reader\.end\(\)/,
    what: /./,
    why: 'a stream that is destroyed already is not destroyed again, and the timer keeps no process alive'
  },
  {
    files: ['lib/'],
    line: /await (turnAfter|sharedTurn)\(/,
    what: /^await .* -> /,
    why: 'lets others have their turn: only the measurements of test/reliability/loop-turns* can tell'
  },
  {
    files: ['lib/repository/chunk-reader.ts', 'lib/repository/chunk-writer.ts'],
    line: /buffers\.give\(/,
    what: /\(removed\)|;/,
    why: 'memory that is not given back is allocated anew: only the measurements of test/memory can tell'
  },
  {
    files: ['lib/repository/ids.ts'],
    line: /newest > known \? newest : known/,
    what: /^> -> >=/,
    why: 'of two equal numbers either is the larger one'
  },
  {
    files: ['lib/repository/chunk-places.ts', 'lib/repository/manifests.ts'],
    line: /index - from >= TAKEN_IDS|#conflicts >= TAKEN_IDS|#conflicts = 0$/,
    what: /^(>= -> >|0 -> 1)/,
    why: 'how often exactly is tried before the database is not believed is no promise'
  },
  {
    files: ['lib/repository/codec.ts'],
    line: /const isThere = /,
    what: /^(?!&&)/,
    why: 'bytes that are there already may be copied once more onto themselves; other memory is used only when the output is full, and then the length refuses it'
  },
  {
    files: ['lib/backup/backup-job.ts'],
    line: /await progress\.settle\(\)/,
    what: /./,
    why: 'changes of one header run one after another: its end waits for the progress under way in any case'
  },
  {
    files: ['lib/lease/leases.ts'],
    line: /await this\.#removeFreed\(\)/,
    what: /^await .* -> this/,
    why: 'leaves that say nothing go a moment later; the call never fails'
  },
  {
    files: ['lib/lease/leases.ts'],
    line: /FIRST_WAIT \* 2 \*\*|wait \* \(0\.25 \+ 0\.75/,
    what: /^(?!await)/,
    why: 'how long exactly is waited before the next claim is no promise'
  },
  {
    files: ['lib/lease/', 'lib/operations/outbox.ts'],
    line: /performance\.now\(\) [<>]=? |startedAt <= this\.#validUntil|now - since >= this\.#patience/,
    what: /^(> -> >=|>= -> >|< -> <=|<= -> <)$/,
    why: 'of a time that has a fraction of milliseconds, one instant more or less is no promise'
  },
  {
    files: ['lib/lease/lease-document.ts'],
    line: /beat: typeof doc\.beat === 'number' \? doc\.beat : 0/,
    what: /^0 -> 1$/,
    why: 'beats of one claim are compared, and those of earlier versions are of claims that are over'
  },
  {
    files: ['lib/restore/target-table.ts'],
    line: /count === 1 \? 0 : partitionOfPrint/,
    what: /^1 -> 0$/,
    why: 'of one partition the number is 0 in any case: it is only found sooner'
  },
  {
    files: ['lib/restore/large-writer.ts'],
    line: /document\.parts\.reduce\(\(sum, \{ length \}\) => sum \+ length, 0\)/,
    what: /^0 -> 1$/,
    why: 'one byte more or less of 64 MiB of attachments is no promise'
  },
  {
    files: ['lib/repository/chunk-list.ts'],
    line: /^ +listed\.dead = undefined$/,
    what: /;/,
    why: 'frees the set: the next settling would enter the same again'
  },
  {
    files: ['lib/repository/appender.ts'],
    line: /const mayBeThere = /,
    what: /^&& -> \|\|$/,
    why: 'whether the bytes are read at all: they decide, and the same bytes need not be stored again'
  },
  {
    files: ['lib/restore/state-table.ts'],
    line: /=== h >>> 0 && .*STATE_BITS/,
    what: /^&& -> \|\|$/,
    why: 'of 59 bits of a keyed hash that have to be equal, no test can find a state of which 32 are'
  },
  {
    files: ['lib/repository/chunk-reader.ts', 'lib/repository/chunk-writer.ts', 'lib/restore/bulk-writer.ts'],
    line: /new BufferPool\(/,
    what: /./,
    why: 'how much memory is kept for later: only the measurements of test/memory can tell'
  },
  {
    files: ['lib/lease/leases.ts', 'lib/repository/appended-transfer.ts'],
    line: /for \(let attempt = 1; ; attempt\+\+\)/,
    what: /^1 -> [02]$/,
    why: 'how often exactly is tried, and how long is waited after the first conflict, is no promise'
  },
  {
    files: ['lib/lease/lease-document.ts', 'lib/operations/lifecycle.ts'],
    line: /randomBytes\((12|16)\)/,
    what: /^1[26] -> /,
    why: 'a claim, or the id of an operation that nothing else reads, has to be unique, and is with a byte more or less'
  },
  {
    files: ['lib/restore/same-content.ts'],
    line: /randomBytes\(16\)/,
    what: /^16 -> /,
    why: 'a key that nobody knows keeps others from choosing contents that collide, with a byte more or less as well'
  },
  {
    files: ['lib/operations/outbox.ts'],
    line: /status: status \?\? 0/,
    what: /^0 -> 1/,
    why: 'a client that was told has answered with a status'
  },
  {
    files: ['lib/backup/backup-job.ts'],
    line: /namesOfExisting\(LOGICAL_DATABASES\.slice\(1\)/,
    what: /^1 -> 0/,
    why: 'one look more at the first database, which is read at once'
  },
  {
    files: ['lib/lease/leases.ts'],
    line: /\(a < b \? -1 : 1\)/,
    what: /^1 -> 0/,
    why: 'the largest number is the last in either case'
  },
  {
    files: ['lib/lease/leases.ts'],
    line: /found\.staleIn \?\? 0/,
    what: /^0 -> 1/,
    why: 'what is found is held or stale, so that its time is known'
  },
  {
    files: ['lib/restore/safety-backup.ts'],
    line: /for \(let i = 0; i < ids\.length; i \+= COMPARE_BATCH\)/,
    what: /^< -> <=/,
    why: 'one more look, at no document'
  },
  {
    files: ['lib/restore/plan.ts'],
    line: /const askRevisions = /,
    what: /^&& -> \|\|/,
    why: 'asks for revisions that the target surely lacks: the answer is the same, and costs a request'
  },
  {
    files: ['lib/restore/source.ts'],
    line: /!document\.deleted && document\.rev !== undefined/,
    what: /^&& -> \|\|/,
    why: 'CouchDB tells a revision of each document. A deleted one is told before, or holds no large attachment'
  },
  {
    files: ['lib/repository/database-writer.ts'],
    line: /< chunks\.length \* LIVE_SHARE/,
    what: /^< -> <=/,
    why: 'whether a chunk of the index is written anew at exactly the share, or just below, is no promise'
  },
  {
    files: ['lib/repository/header-seal.ts'],
    line: /list\?\.length \?\? 0\) > 0/,
    what: /^> -> >=/,
    why: 'headers of failed backups have no lists: an empty one is as good as none'
  },
  {
    files: ['lib/operations/active-operations.ts'],
    line: /operation\.beganAt = performance\.now\(\)$/,
    what: /./,
    why: 'whether the time that a failed backup took includes the taking of the lease is no promise'
  }
]
