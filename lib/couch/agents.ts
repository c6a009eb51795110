import { Agent, type Dispatcher } from 'undici'

/** Connections to each server. What reads backups for others is bounded itself: it has as many as it needs. */
const CONNECTIONS = { common: 64, operations: 64, reserved: 4, downloads: null }

/** What a request is told by {@link TellingAgent}, beside undici's options. */
export interface Told {
  onConnection: () => void
}

/** Tells a request that it has got its connection. */
class TellingAgent extends Agent {
  override dispatch(options: Agent.DispatchOptions & Partial<Told>, handler: Dispatcher.DispatchHandlers) {
    const onConnect = handler.onConnect?.bind(handler)
    handler.onConnect = (abort) => {
      options.onConnection?.()
      onConnect?.(abort)
    }
    return super.dispatch(options, handler)
  }
}

const agentOf = (connections: number | null) => new TellingAgent({ keepAliveTimeout: 10_000, connections })

/** The connections of clients that were made from one another. */
export class Agents {
  readonly common = agentOf(CONNECTIONS.common)
  /** For backups and restores: requests that come in must not keep them waiting. */
  readonly operations = agentOf(CONNECTIONS.operations)
  /** For calls that must not wait behind others. */
  readonly reserved = agentOf(CONNECTIONS.reserved)
  /** For what downloads read: a reader that pauses must keep no other call waiting. */
  readonly downloads = agentOf(CONNECTIONS.downloads)

  async close(): Promise<void> {
    await Promise.all(
      [this.common, this.operations, this.reserved, this.downloads].map((agent) => agent.destroy())
    )
  }
}
