/** Prometheus metrics by the host's `prom-client`, 14 or later. */
export interface MetricsOptions {
  /** The module: `import * as client from 'prom-client'`. */
  client: PrometheusClient
  /** Where the metrics are registered. Default: the client's default registry. */
  registry?: PrometheusRegistry
  /** Put before the names of all metrics. Default: none. */
  prefix?: string
}

/** The parts of `prom-client` that are used, so that its types are not needed. */
export interface PrometheusClient {
  Counter: new (configuration: PrometheusConfiguration) => PrometheusCounter
  Gauge: new (configuration: PrometheusConfiguration) => PrometheusGauge
  Histogram: new (configuration: PrometheusConfiguration & { buckets: number[] }) => PrometheusHistogram
  register: PrometheusRegistry
}

export interface PrometheusRegistry {
  getSingleMetric(name: string): object | undefined
  registerMetric(metric: never): void
}

export interface PrometheusConfiguration {
  name: string
  help: string
  labelNames: string[]
  registers: []
}

export interface PrometheusCounter {
  inc(labels: Record<string, string>, value: number): void
}

export interface PrometheusGauge extends PrometheusCounter {
  set(labels: Record<string, string>, value: number): void
}

export interface PrometheusHistogram {
  observe(labels: Record<string, string>, value: number): void
}
