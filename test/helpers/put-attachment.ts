import { request } from 'node:http'

/**
 * Writes an attachment at its own URL, with headers that nano cannot set, such as `Content-Encoding`.
 * @returns the document's new revision
 */
export async function putAttachment(
  url: string,
  path: readonly string[],
  data: Buffer,
  headers: Record<string, string>,
  rev?: string
): Promise<string> {
  const { origin, username, password } = new URL(url)
  const target = `${origin}/${path.map(encodeURIComponent).join('/')}${rev ? `?rev=${encodeURIComponent(rev)}` : ''}`
  return new Promise((resolve, reject) => {
    const sent = request(
      target,
      {
        method: 'PUT',
        headers: { ...headers, 'content-length': data.length },
        ...(username && { auth: `${username}:${password}` })
      },
      (response) => {
        let body = ''
        response.setEncoding('utf8').on('data', (piece: string) => {
          body += piece
        })
        response.on('end', () =>
          response.statusCode === 201 ? resolve(JSON.parse(body).rev) : reject(new Error(body))
        )
      }
    )
    sent.on('error', reject).end(data)
  })
}
