import { once } from 'node:events'
import { connect } from 'node:net'
import { PassThrough, Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import type { DbBackups } from '../types/index.js'
import { apiOf, backupOf } from './helpers/api.js'
import { buildHost } from './helpers/host.js'

const BACKUP = backupOf([{ _id: 'first' }])
const REFUSED = { statusCode: 400, code: 'DB_BACKUPS_INVALID_PARAMETER' }

type Call = (backups: DbBackups, id: string) => Promise<unknown>
/** Invalid calls from JavaScript, which no compiler checks, each with what the refusal names. */
const CALLS: Record<string, [Call, RegExp]> = {
  'a skip list that is a text': [
    (on, id) => on.restore({ id }, { skip: { system: '00_settings_athena' } } as never),
    /options\/skip\/system/
  ],
  'one list for all databases': [
    (on, id) => on.restore({ id }, { skip: ['a'] } as never),
    /options\/skip: expected object/
  ],
  'a skip list of an unknown database': [
    (on, id) => on.restore({ id }, { skip: { athena_system: ['a'] } } as never),
    /options\/skip\/athena_system/
  ],
  'a misspelt option': [(on, id) => on.restore({ id }, { dryrun: true } as never), /options\/dryrun/],
  'an option of another type': [
    (on, id) => on.restore({ id }, { dryRun: 'false' } as never),
    /options\/dryRun/
  ],
  'no options but null': [(on, id) => on.restore({ id }, null as never), /options/],
  'a restore of nothing': [(on) => on.restore(undefined as never), /\{ id \} or \{ body \}/],
  'a restore of an empty object': [(on) => on.restore({} as never), /\{ id \} or \{ body \}/],
  'a restore of both': [
    (on, id) => on.restore({ id, body: Readable.from([]) } as never),
    /\{ id \} or \{ body \}/
  ],
  'an id that is a number': [(on) => on.restore({ id: 5 } as never), /id must be a string/],
  'a parsed body': [(on) => on.restore({ body: { dbs: {} } } as never), /body must be a stream/],
  'a text': [(on) => on.restore({ body: '{"dbs":{}}' } as never), /body must be a stream/],
  'a buffer': [(on) => on.restore({ body: Buffer.from('{}') } as never), /body must be a stream/],
  'a web stream': [(on) => on.restore({ body: new ReadableStream() } as never), /fromWeb/],
  'options of a backup that are none': [(on) => on.start(null as never), /options/],
  'a misspelt requester': [(on) => on.start({ requestor: {} } as never), /options\/requestor/],
  'an attachment that is a stream': [
    (on, id) => on.attach(id, 'a', Readable.from(['x']) as never),
    /data must be a string or a Buffer/
  ],
  'an attachment of an ArrayBuffer': [(on, id) => on.attach(id, 'a', new ArrayBuffer(9) as never), /data/],
  'an attachment of floats': [(on, id) => on.attach(id, 'a', new Float64Array(9) as never), /data/],
  'an attachment that is a number': [(on, id) => on.attach(id, 'a', 5 as never), /data/],
  'no attachment': [(on, id) => on.attach(id, 'a', undefined as never), /data/],
  'an attachment without a name': [(on, id) => on.attach(id, undefined as never, 'x'), /name/],
  'a misspelt type': [(on, id) => on.attach(id, 'a', 'x', { content_type: 'a/b' } as never), /content_type/],
  'no id': [(on) => on.get(undefined as never), /backup_id/],
  'no id of a summary': [(on) => on.summary(undefined as never), /backup_id/]
}

t.test('arguments that no compiler has checked are refused by name', async (t) => {
  const host = await buildHost(t)
  const api = apiOf(host)
  const id = await api.backup()
  const before = (await api.call('GET', `/${id}`)).json()
  for (const [what, [call, names]] of Object.entries(CALLS)) {
    const error = await call(host.app.dbBackups, id).then(
      () => undefined,
      (error: Error) => error
    )
    t.match(error, { ...REFUSED, message: names }, what)
  }
  t.match((await api.call('GET', `/${id}`)).json(), before, 'nothing was done')
  t.strictSame((await api.call('GET')).json(), { ids: [id] })
  await host.app.dbBackups.attach(id, 'bytes', new Uint8Array([104, 105]).subarray(0, 2) as Buffer)
  t.match((await api.call('GET', `/${id}`)).json(), { _attachments: { bytes: 'aGk=' } })
})

t.test('a host whose parsers have read an upload is told so, and goes on', async (t) => {
  const host = await buildHost(t, {
    extend(app) {
      app.put('/own', async (request) => {
        const { tx_id } = await app.dbBackups.restore({ body: request.body as Readable })
        return { tx_id }
      })
    }
  })
  for (const type of ['application/json', 'text/plain']) {
    const reply = await host.app.inject({
      method: 'PUT',
      url: '/own',
      headers: { 'content-type': type },
      payload: BACKUP
    })
    t.match(reply.json(), { ...REFUSED, message: /keep parsers away/ }, type)
  }
  // longer than the server waits for a refused body
  await delay(3500)
  t.equal((await apiOf(host).call('GET')).statusCode, 200)
})

t.test('a restore of a stream has the bounds of an upload', async (t) => {
  const host = await buildHost(t, { limits: { uploadBytes: 1000 } })
  const large = new PassThrough()
  large.end(JSON.stringify(backupOf([{ _id: 'large', text: 'x'.repeat(5000) }])))
  await t.rejects(host.app.dbBackups.restore({ body: large }), {
    statusCode: 413,
    code: 'DB_BACKUPS_TOO_LARGE',
    message: /1000 bytes/
  })
  const small = await host.app.dbBackups.restore({ body: Readable.from([JSON.stringify(BACKUP)]) })
  t.match(await small.finished, { databases: { components: { created: 1 } } })
})

t.test(
  'senders that fall silent in a route of the host are answered, and hold up no other upload',
  async (t) => {
    const host = await buildHost(t, {
      limits: { uploads: 2 },
      timeouts: { idle: 500 },
      extend(app) {
        app.register(async (own) => {
          own.removeAllContentTypeParsers()
          own.addContentTypeParser('application/json', (_request, payload, done) => done(null, payload))
          own.put('/own', async (request) => {
            const { tx_id } = await app.dbBackups.restore({ body: request.body as Readable })
            return { tx_id }
          })
        })
      }
    })
    const url = new URL(await host.app.listen({ host: '127.0.0.1', port: 0 }))
    const replies = await Promise.all(
      [1, 2].map(async () => {
        const socket = connect(Number(url.port), url.hostname)
        t.teardown(() => socket.destroy())
        socket.write(
          'PUT /own HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{"dbs":'
        )
        const [reply] = (await once(socket, 'data', { signal: AbortSignal.timeout(20_000) })) as [Buffer]
        return String(reply)
      })
    )
    for (const reply of replies) t.match(reply, /^HTTP\/1.1 408 [\s\S]*DB_BACKUPS_UPLOAD_TIMEOUT/)
    t.equal((await apiOf(host).restore(BACKUP)).status, 'success')
  }
)
