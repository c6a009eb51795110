/** Work that goes on after the call that started it, to be waited for when the server closes. */
export class BackgroundJobs {
  readonly #jobs = new Set<Promise<unknown>>()

  /** Ignoring the promise's rejection is safe. */
  add<T>(job: Promise<T>): Promise<T> {
    this.#jobs.add(job)
    job.catch(() => undefined).finally(() => this.#jobs.delete(job))
    return job
  }

  /** Resolves when all jobs of now have ended, at the latest after `timeout` milliseconds. */
  async settled(timeout: number): Promise<void> {
    if (this.#jobs.size === 0) return
    let timer: NodeJS.Timeout | undefined
    const late = new Promise((resolve) => {
      timer = setTimeout(resolve, timeout)
    })
    await Promise.race([Promise.allSettled(this.#jobs), late])
    clearTimeout(timer)
  }
}
