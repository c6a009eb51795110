/** Reads a positive whole number from an environment variable. */
export function wholeNumber(name: string, byDefault: number): number {
  const value = Number(process.env[name] ?? byDefault)
  if (!Number.isInteger(value) || value < 1) throw new Error(`${name} must be a whole number of at least 1`)
  return value
}

/** Reads a list of names, separated by commas, from an environment variable. Returns all `known` ones by default. */
export function choices<T extends string>(name: string, known: readonly T[]): T[] {
  const chosen = process.env[name]?.split(',') ?? known
  const unknown = chosen.find((one) => !known.includes(one as T))
  if (unknown !== undefined) throw new Error(`${name} does not know "${unknown}", only ${known.join(', ')}`)
  return chosen as T[]
}

/** Whether tests run at their full length, as `npm run test:reliability` does. */
export const isLong = process.env.LONG === '1'

/** Returns how much a test does: `short` in `npm test`, `long` with `LONG=1`. */
export const extent = <T>(short: T, long: T): T => (isLong ? long : short)

/** Returns how many generated cases a property is tried with: so many, or `CASES` times as many. */
export const cases = (byDefault: number): number => byDefault * wholeNumber('CASES', 1)
