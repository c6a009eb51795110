import { join } from 'node:path'
import { parseArgs } from 'node:util'
import Fastify from 'fastify'
import nano from 'nano'
import dbBackups, { createMemoryWebhookStore } from '../lib/index.js'
import { call, load, newDocuments, recreate, serverOf } from './dataset.js'
import { machine, median, versionOf } from './jobs.js'
import { writeSection } from './sections.js'

const USAGE = `npm run bench -- verify [options]

  --docs N     documents of the backup (default 100000)
  --rounds N   verifications at each depth (default 3)
  --out FILE   file of results, in which one section is written anew (default bench/RESULTS.md)

COUCHDB_URL, with credentials in it, names the server.`

const TITLE = '## Verifications'
const MiB = 1024 * 1024
const names = {
  components: 'bench_verify_components',
  sessions: 'bench_verify_sessions',
  system: 'bench_verify_system',
  backups: 'bench_verify_backups'
}

/** Measures how fast a backup is verified, in this process, and writes that section of the results. */
export async function measureVerify(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      docs: { type: 'string', default: '100000' },
      rounds: { type: 'string', default: '3' },
      out: { type: 'string', default: join('bench', 'RESULTS.md') },
      help: { type: 'boolean', default: false }
    }
  })
  if (values.help) return console.log(USAGE)
  const url = (process.env.COUCHDB_URL ?? '').replace(/\/$/, '')
  if (!url) throw new Error('COUCHDB_URL is not set')
  const server = serverOf(url)
  const app = Fastify()
  try {
    for (const name of Object.values(names)) await recreate(server, name)
    await load(server, names.components, newDocuments(Number(values.docs)))
    app.register(dbBackups, {
      couch: nano(url),
      databases: names,
      authorize: () => undefined,
      webhooks: createMemoryWebhookStore(),
      rebuildWhitelist: () => undefined
    })
    await app.ready()
    const { id, finished } = await app.dbBackups.start()
    await finished
    const rows: string[] = []
    for (const depth of ['structure', 'data', 'restore'] as const) {
      const seconds: number[] = []
      const processor: number[] = []
      let bytes = 0
      for (let round = 0; round < Number(values.rounds); round++) {
        const [before, startedAt] = [process.cpuUsage(), performance.now()]
        const report = await app.dbBackups.verify(id, { depth })
        if (!report.good) throw new Error(JSON.stringify(report.problems))
        const { user, system } = process.cpuUsage(before)
        seconds.push((performance.now() - startedAt) / 1000)
        processor.push((user + system) / 1e6)
        bytes = report.databases.components?.bytes ?? 0
      }
      const rate = (time: number) => (bytes / MiB / time).toFixed(0)
      const [took, used] = [median(seconds), median(processor)]
      rows.push(
        `| \`${depth}\` | ${took.toFixed(2)} s | ${used.toFixed(2)} s | ${rate(took)} MiB/s | ${rate(used)} MiB/s |`
      )
    }
    const section = `${TITLE}

${values.docs} documents, ${values.rounds} rounds, medians. ${await versionOf(server, true)}; ${machine()}.

| depth | time | processor time of the plugin's process | documents' JSON in that time | in that processor time |
| --- | --- | --- | --- | --- |
${rows.join('\n')}`
    await writeSection(values.out, TITLE, section)
  } finally {
    await app.close()
    for (const name of Object.values(names)) await call(server, 'DELETE', `/${name}`)
  }
}
