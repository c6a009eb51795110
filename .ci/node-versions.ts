/**
 * Installs the packed package into a fresh project, and runs `smoke.mjs` there on this Node.js and on the newest of
 * each further version, which the npm package `node` brings.
 */
import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { startEmbeddedCouch } from '../examples/standalone/embedded-couch.js'

const VERSIONS = ['22', '24']
const ROOT = join(__dirname, '..')
const execute = promisify(execFile)
const npm = (cwd: string, ...args: string[]) =>
  execute('npm', [...args, '--no-audit', '--no-fund', '--loglevel=error'], { cwd, timeout: 600_000 })

/** @returns path of the binary */
async function installNode(directory: string, version: string): Promise<string> {
  const project = join(directory, `node-${version}`)
  await mkdir(project)
  // It is the install script that brings the binary.
  const manifest = { private: true, allowScripts: { node: true } }
  await writeFile(join(project, 'package.json'), JSON.stringify(manifest))
  await npm(project, 'install', `node@${version}`, '--ignore-scripts=false')
  return join(project, 'node_modules/node/bin/node')
}

async function installPackage(directory: string): Promise<string> {
  const project = join(directory, 'project')
  await mkdir(project)
  // In CI `npm ci` has just built it; tests run meanwhile.
  const scripts = process.env.CI ? ['--ignore-scripts'] : []
  await npm(ROOT, 'pack', '--pack-destination', project, ...scripts)
  await writeFile(join(project, 'package.json'), JSON.stringify({ private: true }))
  const { name, version } = require(join(ROOT, 'package.json'))
  await npm(project, 'install', `./${name}-${version}.tgz`, 'fastify@5', 'nano')
  await cp(join(__dirname, 'smoke.mjs'), join(project, 'smoke.mjs'))
  return project
}

async function main(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'node-versions-'))
  const embedded = process.env.COUCHDB_URL ? undefined : await startEmbeddedCouch({ memory: true })
  const COUCHDB_URL = embedded?.url ?? process.env.COUCHDB_URL
  try {
    const installed = Promise.all(VERSIONS.map((version) => installNode(directory, version)))
    const [project, binaries] = await Promise.all([installPackage(directory), installed])
    for (const binary of [process.execPath, ...binaries]) {
      const { stdout } = await execute(binary, ['smoke.mjs'], {
        cwd: project,
        env: { PATH: process.env.PATH, COUCHDB_URL },
        timeout: 300_000
      })
      console.log(`packed package: works on Node.js ${stdout.trim()}`)
    }
  } finally {
    await embedded?.close()
    await rm(directory, { recursive: true, force: true })
  }
}

main().catch((error: Error & { stdout?: string; stderr?: string }) => {
  console.error(error.message, error.stdout ?? '', error.stderr ?? '')
  process.exitCode = 1
})
