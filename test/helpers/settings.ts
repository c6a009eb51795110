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

/** Returns how many generated cases a property is tried with: so many, or `CASES` times as many. */
export const cases = (byDefault: number): number => byDefault * wholeNumber('CASES', 1)
