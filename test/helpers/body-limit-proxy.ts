import { createServer, type IncomingMessage, type ServerResponse, request as send } from 'node:http'
import type { Test } from 'tap'
import { listenInFrontOf } from './listen.js'

const PAGE =
  '<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n<center><h1>413 Request Entity Too Large</h1></center>\r\n<hr><center>nginx/1.25.3</center>\r\n</body>\r\n</html>\r\n'

interface BodyLimitProxy {
  /** URL of the database with the address of the proxy. */
  url: string
  /** Bytes of the largest body. */
  limit: number
  /**
   * How the proxy refuses: answers and reads the rest of the body, as nginx does with `lingering_close`; answers and
   * closes the connection at once; or closes the connection so soon that no answer arrives.
   */
  closing: 'lingers' | 'at once' | 'without answer'
  /** Refused requests: method and path. */
  refused: string[]
  /** Number of the bodies that were passed on, and bytes of the largest. */
  passed: { bodies: number; largest: number }
}

/**
 * Starts a proxy that limits bodies as nginx does: it answers 413 with a page of HTML as soon as `Content-Length` or
 * the body itself exceeds the limit, and closes the connection while the body is still being sent.
 */
export async function startBodyLimitProxy(
  t: Test,
  url: string,
  options: Pick<BodyLimitProxy, 'limit'> & Partial<Pick<BodyLimitProxy, 'closing'>>
): Promise<BodyLimitProxy> {
  const target = new URL(url)
  const proxy: BodyLimitProxy = {
    url: '',
    limit: options.limit,
    closing: options.closing ?? 'at once',
    refused: [],
    passed: { bodies: 0, largest: 0 }
  }
  const server = createServer((request, response) => void pass(request, response))
  server.on('clientError', (_error, socket) => socket.destroy())
  proxy.url = await listenInFrontOf(t, server, url)
  return proxy

  function refuse(request: IncomingMessage, response: ServerResponse): void {
    proxy.refused.push(`${request.method} ${request.url}`)
    if (proxy.closing === 'without answer') {
      request.socket.resetAndDestroy()
      return
    }
    const lingers = proxy.closing === 'lingers'
    response.writeHead(413, {
      server: 'nginx/1.25.3',
      'content-type': 'text/html',
      'content-length': PAGE.length,
      ...(lingers ? undefined : { connection: 'close' })
    })
    response.end(PAGE)
    if (!lingers) return
    request.resume()
    request.on('end', () => request.socket.end())
  }

  async function pass(request: IncomingMessage, response: ServerResponse): Promise<void> {
    request.on('error', () => response.destroy())
    if (Number(request.headers['content-length'] ?? 0) > proxy.limit) return refuse(request, response)
    // nginx passes a request on once it has all of it
    const pieces: Buffer[] = []
    let size = 0
    for await (const piece of request.iterator({ destroyOnReturn: false })) {
      pieces.push(piece)
      size += piece.length
      if (size > proxy.limit) return refuse(request, response)
    }
    if (size > 0) proxy.passed.bodies++
    proxy.passed.largest = Math.max(proxy.passed.largest, size)
    const { 'transfer-encoding': _, ...headers } = request.headers
    const body = Buffer.concat(pieces)
    const onward = send(
      {
        host: target.hostname,
        port: target.port,
        method: request.method,
        path: request.url,
        headers: size > 0 ? { ...headers, 'content-length': size } : headers
      },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, { ...answer.headers, server: 'nginx/1.25.3' })
        answer.pipe(response)
      }
    )
    onward.on('error', () => response.destroy())
    response.on('close', () => onward.destroy())
    onward.end(body)
  }
}
