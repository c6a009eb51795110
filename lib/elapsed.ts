const UNITS: readonly [name: string, ms: number][] = [
  ['days', 86_400_000],
  ['hours', 3_600_000],
  ['mins', 60_000],
  ['secs', 1000]
]

/** A duration for people: `"23.8 secs"`. */
export function elapsed(ms: number): string {
  const unit = UNITS.find(([, size]) => ms >= size)
  return unit ? `${(ms / unit[1]).toFixed(1)} ${unit[0]}` : `${Math.round(ms)} ms`
}
