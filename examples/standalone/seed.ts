import { createHash, randomUUID } from 'node:crypto'
import type { ServerScope } from 'nano'
import type { DatabaseNames } from '../../types/index.js'
import { SETTINGS_ID, type Settings, USERS } from './access.js'

/** Id of the document that marks the databases as the example's. A restore never replaces a `_local` document. */
const MARKER_ID = '_local/example_console'

/** The state that a start found, or made. */
export type Seeding = 'seeded' | 'left empty' | 'of an earlier start'

/**
 * Creates missing databases and, unless there are settings already, the documents of a small console.
 * @param empty leaves the databases empty
 * @returns what the databases are now
 * @throws when the databases belong to another console, which must not get the example's users and keys
 */
export async function seed(
  couch: ServerScope,
  names: DatabaseNames,
  { empty = false } = {}
): Promise<Seeding> {
  for (const name of [names.components, names.sessions, names.system]) {
    await couch.db.create(name).catch((error: { statusCode?: number }) => {
      if (error.statusCode !== 412) throw error
    })
  }
  const system = couch.use<Record<string, unknown>>(names.system)
  const exists = (id: string) =>
    system.get(id).then(
      () => true,
      (error: { statusCode?: number }) => {
        if (error.statusCode === 404) return false
        throw error
      }
    )
  const ours = await exists(MARKER_ID)
  if (await exists(SETTINGS_ID)) {
    if (ours) return 'of an earlier start'
    throw new Error(`${names.system} belongs to another console; choose other databases with --prefix-db`)
  }
  if (!ours) await system.insert({ type: 'example' }, MARKER_ID)
  if (empty) return ours ? 'of an earlier start' : 'left empty'
  await couch.use(names.components).bulk({ docs: components() })
  await couch.use(names.sessions).bulk({ docs: sessions() })
  // the settings come last, so that the next start repeats an interrupted seeding
  await system.bulk({ docs: systemDocuments() })
  const access_list: Settings['access_list'] = {}
  for (const [email, { uuid, role }] of Object.entries(USERS)) access_list[email] = { uuid, roles: [role] }
  const settings: Omit<Settings, '_id'> = { type: 'settings_athena', access_list, white_list: [] }
  await system.insert({ ...settings, app_name: 'example', feature_flags: { dark_mode: true } }, SETTINGS_ID)
  return 'seeded'
}

/** Returns a PEM block that looks like a certificate and is none. */
function certificate(name: string): string {
  const bytes = Array.from({ length: 16 }, (_, i) => createHash('sha256').update(`${name} ${i}`).digest())
  const lines =
    Buffer.concat(bytes)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return ['-----BEGIN CERTIFICATE-----', ...lines, '-----END CERTIFICATE-----', ''].join('\n')
}

function component(id: string, type: string, mspId: string, more: object = {}): object {
  const host = `${id}.example.com`
  return {
    _id: id,
    type,
    display_name: id.toUpperCase(),
    msp_id: mspId,
    api_url: type === 'fabric-ca' ? `https://${host}:7054` : `grpcs://${host}:7051`,
    operations_url: `https://${host}:9443`,
    msp: {
      component: { ecert: Buffer.from(certificate(`${id} ecert`)).toString('base64') },
      tlsca: { root_certs: [Buffer.from(certificate(`${mspId} tls`)).toString('base64')] }
    },
    tls_cert: certificate(`${id} tls`),
    scheme_version: 'v1',
    timestamp: Date.now(),
    ...more
  }
}

function components(): object[] {
  return [
    component('org1peer1', 'fabric-peer', 'org1msp', { state_db: 'couchdb', channels: ['channel1'] }),
    component('org1peer2', 'fabric-peer', 'org1msp', { state_db: 'leveldb', channels: [] }),
    component('org1ca', 'fabric-ca', 'org1msp', { ca_name: 'ca', tls_ca_name: 'tlsca' }),
    component('os1node1', 'fabric-orderer', 'osmsp', { cluster_id: 'os1', system_channel_id: 'testchainid' }),
    component('os1node2', 'fabric-orderer', 'osmsp', { cluster_id: 'os1', system_channel_id: 'testchainid' }),
    {
      _id: 'org1msp',
      type: 'msp',
      display_name: 'Org1 MSP',
      msp_id: 'org1msp',
      root_certs: [certificate('org1 root')],
      intermediate_certs: [],
      admins: [certificate('org1 admin')],
      timestamp: Date.now(),
      _attachments: {
        'logo.svg': {
          content_type: 'image/svg+xml',
          data: Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>').toString('base64')
        }
      }
    }
  ]
}

function sessions(): object[] {
  return [
    { _id: randomUUID(), type: 'login_attempt', email: 'admin@example.com', ts: Date.now() },
    {
      _id: randomUUID(),
      type: 'user_preferences',
      email: 'admin@example.com',
      prefs: { theme: 'dark', page: 50 }
    },
    // backups leave out the console's own sessions
    { _id: randomUUID(), type: 'session_athena', cookie: { maxAge: 28_800 }, email: 'admin@example.com' }
  ]
}

function systemDocuments(): object[] {
  return [
    {
      _id: 'user_admin',
      type: 'user_athena',
      email: 'admin@example.com',
      roles: ['manager'],
      ts: Date.now()
    },
    {
      _id: 'signature_collection_1',
      type: 'signature_collection',
      channel: 'channel1',
      orgs2sign: ['org1msp']
    },
    {
      _id: '_design/athena-v1',
      language: 'javascript',
      views: { _doc_types: { map: 'function (doc) { if (doc.type) emit(doc.type) }', reduce: '_count' } }
    }
  ]
}
