import { connect, type Socket } from 'node:net'
import type { Test } from 'tap'

/** Sends bytes to a port of this machine, and reads no answer. The connection closes when the test ends. */
export function sendRaw(t: Test, port: number, text: string): Socket {
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => undefined)
  socket.write(text)
  t.teardown(() => socket.destroy())
  return socket
}
