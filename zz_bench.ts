import Fastify from 'fastify'
import nano from 'nano'
import { createMemoryWebhookStore, dbBackups } from './lib/index.js'

const url = 'http://admin:secret@127.0.0.1:5984'
const P = 'wtdiff'
const call = async (m: string, p: string, b?: object) =>
  (
    await fetch(`http://127.0.0.1:5984/${p}`, {
      method: m,
      headers: {
        authorization: 'Basic ' + Buffer.from('admin:secret').toString('base64'),
        'content-type': 'application/json'
      },
      body: b && JSON.stringify(b)
    })
  ).json()
const names = {
  components: `${P}_components`,
  sessions: `${P}_sessions`,
  system: `${P}_system`,
  backups: `${P}_backups`
}
async function main() {
  const app = Fastify()
  await app.register(dbBackups, {
    couch: nano(url),
    databases: names,
    authorize: () => undefined,
    webhooks: createMemoryWebhookStore(),
    rebuildWhitelist: () => undefined
  })
  await app.ready()
  const what = process.argv[2]
  if (what === 'setup') {
    for (const n of Object.values(names)) await call('PUT', n)
    const c: any = await call('GET', names.components)
    if (c.doc_count < 90000) {
      // documents of 1 KB from the perf database
      const r: any = await call('POST', '_replicate', {
        source: `${url}/perf_components`,
        target: `${url}/${names.components}`
      })
      console.log(JSON.stringify(r).slice(0, 200))
    }
    const t0 = performance.now()
    const one = await (await app.dbBackups.start({ full: true })).finished
    console.log('full', one.id, performance.now() - t0, one.doc_count)
    const ids = ((await call('GET', `${names.components}/_all_docs`)) as any).rows.map((r: any) => r.id)
    const step = Math.floor(ids.length / 100)
    const docs = []
    for (let i = 0; i < 100; i++) {
      const d: any = await call('GET', `${names.components}/${encodeURIComponent(ids[i * step])}`)
      docs.push({ ...d, changed: Date.now() })
    }
    await call('POST', `${names.components}/_bulk_docs`, { docs })
    const two = await (await app.dbBackups.start()).finished
    console.log('incremental', two.id, JSON.stringify(two.dbs.athena_components))
  } else {
    const { ids } = await app.dbBackups.list()
    const [a, b] = [ids.at(-2)!, ids.at(-1)!]
    const run = async (n: string, f: () => Promise<unknown>) => {
      const c0 = process.cpuUsage()
      const t0 = performance.now()
      const r = await f()
      const c = process.cpuUsage(c0)
      console.log(
        n,
        (performance.now() - t0).toFixed(0),
        'ms',
        'cpu',
        ((c.user + c.system) / 1000).toFixed(0),
        r
      )
    }
    ;(globalThis as any).gc?.()
    const idle = process.memoryUsage.rss()
    let peak = idle
    const timer = setInterval(() => {
      peak = Math.max(peak, process.memoryUsage.rss())
    }, 10)
    if (what === 'two')
      for (let i = 0; i < 5; i++) {
        await run('a->b', async () => (await app.dbBackups.diff(a, { against: b }).toArray()).length)
        await run('b->a', async () => (await app.dbBackups.diff(b, { against: a }).toArray()).length)
      }
    if (what === 'full')
      await run(`${process.argv[3]}->${process.argv[4]}`, async () => {
        let n = 0
        for await (const _ of app.dbBackups.diff(process.argv[3]!, { against: process.argv[4]! })) n++
        return n
      })
    if (what === 'now')
      for (let i = 0; i < 2; i++) {
        await run('diff now', async () => (await app.dbBackups.diff(b, { against: 'now' }).toArray()).length)
        await run('restore unchanged', async () =>
          JSON.stringify((await (await app.dbBackups.restore({ id: b })).finished).databases.components)
        )
        await run('dry exact', async () =>
          JSON.stringify(
            (await (await app.dbBackups.restore({ id: b }, { dryRun: true, exact: true })).finished).databases
              .components
          )
        )
      }
    clearInterval(timer)
    console.log('rss above idle', ((peak - idle) / 2 ** 20).toFixed(0), 'MiB')
  }
  await app.close()
}
void main()
