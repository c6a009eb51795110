import { randomBytes } from 'node:crypto'
import type { DocumentScope } from 'nano'

export type Role = 'manager' | 'reader'

/** API key and secret, with a colon between them, and password of each role, by the variables that give them. */
export const VARIABLES = ['MANAGER_KEY', 'MANAGER_PASSWORD', 'READER_KEY', 'READER_PASSWORD'] as const
export type Variable = (typeof VARIABLES)[number]

/**
 * Id of the document that keeps generated credentials, in plain text: only those who can write keys of their own can
 * read it. A `_local` document is in no backup, and no restore replaces it.
 */
const KEPT_ID = '_local/example_credentials'

const KEY = /^[\w-]{1,64}:[!-~]{32,}$/
/** The longest password that the login takes. */
export const PASSWORD_LENGTH = 128

export interface Credentials {
  values: Record<Variable, string>
  /** Variables given by the environment. */
  given: readonly Variable[]
  /** Variables whose values are new. */
  made: readonly Variable[]
}

type Some = Partial<Record<Variable, string>>

/**
 * Returns the credentials that the environment has. An empty variable counts as absent.
 * @throws when one of them cannot be used
 */
export function givenCredentials(env: NodeJS.ProcessEnv): Some {
  const given: Some = {}
  for (const variable of VARIABLES) {
    const value = env[variable]
    if (!value) continue
    if (variable.endsWith('_KEY') && !KEY.test(value)) {
      throw new Error(
        `${variable} must be KEY:SECRET: a key of letters, digits, _ and -, and a secret of 32 characters or more without blanks`
      )
    }
    if (variable.endsWith('_PASSWORD') && value.length > PASSWORD_LENGTH) {
      throw new Error(`${variable} must not have more than ${PASSWORD_LENGTH} characters`)
    }
    given[variable] = value
  }
  const { MANAGER_KEY: manager, READER_KEY: reader } = given
  if (manager && reader && nameOf(manager) === nameOf(reader)) {
    throw new Error('MANAGER_KEY and READER_KEY must have different keys before the colon')
  }
  return given
}

/** Completes credentials by those kept with the data, or else by new ones, and keeps the new ones. */
export async function completeCredentials(system: DocumentScope<unknown>, given: Some): Promise<Credentials> {
  const kept = await readKept(system)
  const made: Some = {}
  const choose = (variable: Variable): string => {
    const known = given[variable] ?? kept[variable]
    if (known) return known
    made[variable] = variable.endsWith('_KEY') ? `${random(9)}:${random(32)}` : random(9)
    return made[variable]
  }
  const values = {
    MANAGER_KEY: choose('MANAGER_KEY'),
    MANAGER_PASSWORD: choose('MANAGER_PASSWORD'),
    READER_KEY: choose('READER_KEY'),
    READER_PASSWORD: choose('READER_PASSWORD')
  }
  if (Object.keys(made).length > 0) await system.insert({ ...kept, ...made }, KEPT_ID)
  return { values, given: Object.keys(given) as Variable[], made: Object.keys(made) as Variable[] }
}

/** Returns the key without its secret. */
export function nameOf(key: string): string {
  return key.slice(0, key.indexOf(':'))
}

async function readKept(system: DocumentScope<unknown>): Promise<Some & { _rev?: string }> {
  try {
    return (await system.get(KEPT_ID)) as Some
  } catch (error) {
    if ((error as { statusCode?: number }).statusCode !== 404) throw error
    return {}
  }
}

function random(bytes: number): string {
  return randomBytes(bytes).toString('base64url')
}
