import { Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import type { KeepRules } from '../../types/options.js'
import { InvalidParameterError } from '../errors.js'
import { Calendar } from './calendar.js'
import { DURATION, isSpan } from './duration.js'

const Amount = Type.Optional(Type.Integer({ minimum: 0, maximum: 100_000 }))

const NUMBERS = {
  last: Amount,
  hourly: Amount,
  daily: Amount,
  weekly: Amount,
  monthly: Amount,
  yearly: Amount
}

/** Checks `keep` where it is an object. test/types/schemas.ts compares it with the type. */
export const Rules = Type.Object(
  {
    ...NUMBERS,
    within: Type.Optional(Type.String({ pattern: DURATION.source })),
    timezone: Type.Optional(Type.String({ maxLength: 100 }))
  },
  { additionalProperties: false }
)

/** A mistake in `keep`, and its path: `/timezone`, or the empty path where it is `keep` itself. */
interface Problem {
  path: string
  message: string
}

/** Returns the first mistake in a value of `keep`, if any. */
export function problemOfKeep(value: unknown): Problem | undefined {
  if (value === 'athena') return undefined
  const [problem] = Value.Errors(Rules, value)
  if (problem?.path === '') return { path: '', message: 'must be "athena" or an object of rules' }
  if (problem?.path === '/within')
    return { path: '/within', message: 'must be text such as "1y5m7d2h": years, months, days, hours' }
  if (problem) return { path: problem.path, message: problem.message.toLowerCase() }
  const rules = value as KeepRules
  if (rules.timezone !== undefined && !isTimeZone(rules.timezone))
    return { path: '/timezone', message: 'must be a time zone, such as "UTC" or "Europe/Berlin"' }
  if (!keepsSomething(rules))
    return {
      path: '',
      message: `must have a rule that keeps something: one of ${Object.keys(NUMBERS).join(', ')}, or within, above 0`
    }
  return undefined
}

/** @throws InvalidParameterError that names the member of `options.keep` */
export function checkKeep(value: unknown): asserts value is KeepRules | 'athena' {
  const problem = problemOfKeep(value)
  if (problem) throw new InvalidParameterError(`options/keep${problem.path}: ${problem.message}`)
}

function isTimeZone(name: string): boolean {
  try {
    new Calendar(name)
    return true
  } catch {
    return false
  }
}

const keepsSomething = ({ within, ...rules }: KeepRules): boolean =>
  (Object.keys(NUMBERS) as (keyof typeof NUMBERS)[]).some((rule) => rules[rule]) ||
  (within !== undefined && isSpan(within))
