import { monitorEventLoopDelay } from 'node:perf_hooks'

/** Timer resolution in milliseconds; it is part of what `monitorEventLoopDelay` measures. */
const RESOLUTION = 5

/** The event-loop delay of a process while it is measured: how late its timers are. */
export function watchLoop(): { p99: () => number } {
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION })
  delay.enable()
  return {
    p99() {
      delay.disable()
      return Math.max(0, delay.percentile(99) / 1e6 - RESOLUTION)
    }
  }
}

// As a process of its own, which does nothing: what the machine adds to the delay of any process. Ends when told.
if (require.main === module) {
  const loop = watchLoop()
  process.once('message', () => {
    process.send?.(loop.p99())
    process.disconnect()
  })
}
