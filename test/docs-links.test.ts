import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import t from 'tap'

const ROOT = join(__dirname, '..')
const filesOf = (folder: string, form: RegExp) =>
  readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => form.test(name) && !/node_modules/.test(name))
    .map((name) => `${folder}/${name}`)

const PAGES = [
  'README.md',
  'CHANGELOG.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  ...filesOf('bench', /\.md$/),
  ...filesOf('docs', /\.md$/)
]
const CODE = ['lib', 'types', 'test', 'examples', 'bench', '.ci'].flatMap((folder) =>
  filesOf(folder, /\.(ts|mts|mjs|js)$/)
)

/** Returns a page without what stands in fences: their lines are neither links nor headings. */
const withoutFences = (text: string) => text.replace(/^( *)(`{3,})[\s\S]*?^\1\2 *$/gm, '')

const withoutCode = (text: string) => withoutFences(text).replace(/(`+)(?!`)[^\n]*?(?<!`)\1(?!`)/g, '')

/** Returns the anchors of a page by the rules of GitHub: what is repeated gets a number. */
function anchorsOf(text: string): Set<string> {
  const anchors = new Set<string>()
  for (const [, heading] of withoutFences(text).matchAll(/^#{1,6} +(.+?)(?: +#+)? *$/gm)) {
    const shown = heading!.replace(/!?\[([^\]]*)\]\([^)]*\)/g, '$1')
    const plain = shown
      .toLowerCase()
      .replace(/[^\p{L}\p{M}\p{N}\p{Pc} -]/gu, '')
      .replaceAll(' ', '-')
    let anchor = plain
    for (let n = 1; anchors.has(anchor); n++) anchor = `${plain}-${n}`
    anchors.add(anchor)
  }
  for (const [, id] of text.matchAll(/<a (?:id|name)="([^"]+)"/g)) anchors.add(id!)
  return anchors
}

/** Returns the targets of a page's links and pictures, also of those that are defined apart. */
function linksOf(text: string): string[] {
  const prose = withoutCode(text)
  const inline = [...prose.matchAll(/\]\(\s*<?([^()\s>]+(?:\([^()]*\))?)>?(?:\s+"[^"]*")?\s*\)/g)]
  const apart = [...prose.matchAll(/^\[[^\]]+\]: +(\S+)/gm)]
  return [...inline, ...apart].map(([, target]) => target!)
}

const pages = new Map(PAGES.map((page) => [page, readFileSync(join(ROOT, page), 'utf8')]))
const anchors = new Map([...pages].map(([page, text]) => [page, anchorsOf(text)]))

/** Returns what is wrong with a link, or nothing. */
function fault(from: string, link: string): string | undefined {
  const [path, anchor] = link.split('#')
  const target = path ? relative(ROOT, resolve(ROOT, dirname(from), decodeURI(path))) : from
  if (target.startsWith('..') || !existsSync(join(ROOT, target))) return `${from}: ${link} is not there`
  if (anchor === undefined) return undefined
  if (statSync(join(ROOT, target)).isDirectory()) return `${from}: ${link} is a folder`
  if (anchors.get(target)?.has(anchor)) return undefined
  return `${from}: ${link} has no such heading`
}

t.test('every relative link of a page leads to a file, and to a heading of it', async (t) => {
  const links = [...pages].flatMap(([page, text]) => linksOf(text).map((link) => ({ page, link })))
  const local = links.filter(({ link }) => !/^(https?|mailto):/.test(link))
  t.ok(local.length > 200, `${local.length} links`)
  t.strictSame(local.map(({ page, link }) => fault(page, link)).filter(Boolean), [])
})

t.test('every page that the code names is there, and so is its heading', async (t) => {
  const named = CODE.flatMap((file) =>
    [
      ...readFileSync(join(ROOT, file), 'utf8').matchAll(
        /(?<![\w/.])((?:docs|bench)\/[\w/-]+\.md)(#[\w-]+)?/g
      )
    ].map(([, page, anchor]) => ({ file, link: page! + (anchor ?? '') }))
  )
  t.ok(named.length > 20, `${named.length} names`)
  t.strictSame(
    named
      .map(({ file, link }) => (fault('README.md', link) ? `${file}: ${link}` : undefined))
      .filter(Boolean),
    []
  )
})

t.test('every page of the documentation can be reached from the readme', async (t) => {
  const reached = new Set<string>(['README.md'])
  for (const page of reached) {
    for (const link of linksOf(pages.get(page) ?? '')) {
      const path = link.split('#')[0]!
      if (/^\w+:/.test(link) || path === '') continue
      reached.add(relative(ROOT, resolve(ROOT, dirname(page), path)))
    }
  }
  t.strictSame(
    PAGES.filter((page) => !reached.has(page)),
    []
  )
})

t.test('anchors are made as GitHub makes them', async (t) => {
  const page = [
    '# `fastify.dbBackups`',
    "## 6. The deployer's data",
    '## What & why: a_b-c',
    '## [Linked](x.md) heading',
    '```sh',
    '# no heading',
    '```',
    '## Twice',
    '## Twice',
    '## Größe'
  ].join('\n')
  t.strictSame(
    [...anchorsOf(page)],
    [
      'fastifydbbackups',
      '6-the-deployers-data',
      'what--why-a_b-c',
      'linked-heading',
      'twice',
      'twice-1',
      'größe'
    ]
  )
})
