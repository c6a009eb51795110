import { Agent, type Dispatcher } from 'undici'
import { RequestSize } from './request-size.js'

/** Options of a request for {@link NotifyingAgent}, beside undici's. */
export interface ConnectionListener {
  onConnection: () => void
}

/** Notifies a request that it has got its connection. */
class NotifyingAgent extends Agent {
  override dispatch(
    options: Agent.DispatchOptions & Partial<ConnectionListener>,
    handler: Dispatcher.DispatchHandlers
  ) {
    const onConnect = handler.onConnect?.bind(handler)
    handler.onConnect = (abort) => {
      options.onConnection?.()
      onConnect?.(abort)
    }
    return super.dispatch(options, handler)
  }
}

const agentOf = (connections: number | null) => new NotifyingAgent({ keepAliveTimeout: 10_000, connections })

/** Shared by clients that were made from one another. */
export class Shared {
  /** Connections to each server, by what they are for. */
  readonly agents = {
    common: agentOf(64),
    /** Requests that come in must not keep backups and restores waiting. */
    operations: agentOf(64),
    /** Renewals of the lease must not wait behind other calls. */
    renewals: agentOf(4),
    /** A paused reader must keep no other call waiting. Unbounded: downloads bound themselves. */
    downloads: agentOf(null)
  }
  /** The largest request that the server takes. */
  readonly size: RequestSize

  constructor(requestBytes: number | undefined) {
    this.size = new RequestSize(requestBytes)
  }

  async close(): Promise<void> {
    await Promise.all(Object.values(this.agents).map((agent) => agent.destroy()))
  }
}
