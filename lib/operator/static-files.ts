import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { extname, join } from 'node:path'
import type { FastifyInstance, FastifyReply } from 'fastify'
import type { ResolvedOperatorOptions } from './options.js'

const DIRECTORY = join(__dirname, 'page')

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml'
}

const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "base-uri 'none'",
  "require-trusted-types-for 'script'"
].join(';')

const HEADERS = {
  'content-security-policy': POLICY,
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  // Another version of the package has other files under these names.
  'cache-control': 'no-cache'
}

/** Serves the page's files, and what it has to know before anybody has signed in. Nobody is authorized for them. */
export async function staticFiles(scope: FastifyInstance, options: ResolvedOperatorOptions): Promise<void> {
  for (const name of await readdir(DIRECTORY)) {
    const type = TYPES[extname(name)]
    if (type === undefined) continue
    const content = await readFile(join(DIRECTORY, name))
    const path = name === 'index.html' ? '/' : `/${name}`
    serve(scope, path, type, content)
  }
  const { backupsPath, title, signIn } = options
  serve(
    scope,
    '/config.json',
    'application/json; charset=utf-8',
    Buffer.from(JSON.stringify({ backupsPath, title, signIn }))
  )
}

function serve(scope: FastifyInstance, path: string, type: string, content: Buffer): void {
  const etag = `"${createHash('sha256').update(content).digest('base64url').slice(0, 22)}"`
  scope.get(path, { schema: { hide: true } }, async (request, reply): Promise<FastifyReply> => {
    const asked = request.url.split('?')[0] as string
    // The page's addresses are relative, and so is this one: a proxy may have changed the path.
    if (path === '/' && !asked.endsWith('/')) return reply.redirect(`${asked.split('/').at(-1)}/`, 308)
    reply.headers({ ...HEADERS, etag })
    if (request.headers['if-none-match'] === etag) return reply.code(304).send()
    return reply.type(type).send(content)
  })
}
