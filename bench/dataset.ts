import { createHash } from 'node:crypto'

/** Loads are sent in batches of so many documents, so many at a time: what CouchDB takes fastest. */
const BATCH = 250
const LANES = 8

/**
 * A console-like component document of about 1.2 KB: an id, nested settings, a certificate and text that repeats less
 * than real text does. The same for the same number.
 */
export function documentOf(n: number): object {
  const seed = createHash('sha256').update(String(n)).digest('hex')
  const type = ['fabric-peer', 'fabric-orderer', 'fabric-ca', 'msp'][n % 4]
  return {
    _id: `component_${seed.slice(0, 8)}_${n}`,
    type,
    display_name: `${type} ${n}`,
    api_url: `https://n${n}-peer.example.com:7051`,
    grpcwp_url: `https://n${n}-peer-proxy.example.com:8084`,
    cluster_type: n % 3 ? 'paid' : 'free',
    timestamp: 1_700_000_000_000 + n * 977,
    location: ['ibm_saas', 'on_premise'][n % 2],
    tags: [type, 'ibm_saas', `zone-${n % 7}`],
    resources: {
      peer: { requests: { cpu: '200m', memory: `${n % 4096}Mi` }, limits: { cpu: '400m', memory: '2000Mi' } },
      proxy: { requests: { cpu: '100m', memory: '200Mi' }, limits: { cpu: '200m', memory: '400Mi' } }
    },
    storage: {
      peer: { size: `${n % 100}Gi`, class: 'default' },
      statedb: { size: '10Gi', class: 'default' }
    },
    node_ou: {
      enabled: true,
      clientouidentifier: { certificate: '', organizationalunitidentifier: 'client' }
    },
    msp: {
      component: {
        tls_cert: `-----BEGIN CERTIFICATE-----\n${seed}${seed.slice(0, 32)}\n-----END CERTIFICATE-----`,
        ecert: seed.slice(16, 48)
      }
    },
    version: `2.5.${n % 12}`,
    config_override: { General: { Keepalive: { ServerMinInterval: '60s', ServerInterval: '7200s' } } },
    dep_component_id: `component_${n % 1000}`,
    scheme_version: 'v1'
  }
}

export interface Server {
  origin: string
  authorization: string | undefined
}

export function serverOf(url: string): Server {
  const { origin, username, password } = new URL(url)
  const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
  return {
    origin,
    authorization: username ? `Basic ${Buffer.from(credentials).toString('base64')}` : undefined
  }
}

export async function call(server: Server, method: string, path: string, body?: string): Promise<unknown> {
  const response = await fetch(server.origin + path, {
    method,
    body,
    headers: {
      'content-type': 'application/json',
      ...(server.authorization ? { authorization: server.authorization } : {})
    }
  })
  const answer: unknown = await response.json()
  if (!response.ok && !(method === 'DELETE' && response.status === 404)) {
    throw new Error(`${method} ${path}: ${response.status} ${JSON.stringify(answer)}`)
  }
  return answer
}

/** @param q number of shards; as many as the server makes by itself unless given */
export async function recreate(server: Server, database: string, q?: number): Promise<void> {
  await call(server, 'DELETE', `/${database}`)
  await call(server, 'PUT', `/${database}${q === undefined ? '' : `?q=${q}`}`)
}

/** Fills a database with `bodies` of `_bulk_docs`, the fastest way there is over HTTP. */
export async function load(server: Server, database: string, bodies: readonly string[]): Promise<void> {
  let next = 0
  const lane = async () => {
    while (next < bodies.length) {
      const results = (await call(server, 'POST', `/${database}/_bulk_docs`, bodies[next++])) as {
        error?: string
      }[]
      if (results.some((result) => result.error)) throw new Error('the loader could not write a document')
    }
  }
  await Promise.all(Array.from({ length: LANES }, lane))
}

/** Bodies for {@link load}: documents as they are new. */
export function newDocuments(count: number): string[] {
  const bodies: string[] = []
  for (let from = 0; from < count; from += BATCH) {
    const docs = Array.from({ length: Math.min(BATCH, count - from) }, (_, i) => documentOf(from + i))
    bodies.push(JSON.stringify({ docs }))
  }
  return bodies
}

/** Changes so many documents of those that {@link newDocuments} made, anywhere in the database. */
export async function changeSome(server: Server, database: string, count: number): Promise<void> {
  const { doc_count: all } = (await call(server, 'GET', `/${database}`)) as { doc_count: number }
  const numbers = new Set<number>()
  while (numbers.size < Math.min(count, all)) numbers.add(Math.floor(Math.random() * all))
  const docs = [...numbers].map((n) => documentOf(n) as { _id: string; display_name: string })
  const keys = docs.map(({ _id }) => _id)
  const { rows } = (await call(server, 'POST', `/${database}/_all_docs`, JSON.stringify({ keys }))) as {
    rows: { value: { rev: string } }[]
  }
  const changed = docs.map((doc, i) => ({ ...doc, _rev: rows[i].value.rev, changed: Date.now() }))
  await load(server, database, [JSON.stringify({ docs: changed })])
}
