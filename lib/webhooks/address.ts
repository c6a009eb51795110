import { lookup as dnsLookup, type LookupAddress } from 'node:dns'
import { isIP, type LookupFunction } from 'node:net'
import { isRefusedAddress } from './address-ranges.js'

/** Thrown for a URL that the server must not call, without naming it. */
export class RefusedUrlError extends Error {
  override readonly name = 'RefusedUrlError'
}

/** Checks a webhook's URL by itself. @throws RefusedUrlError */
export function parseWebhookUrl(text: string): URL {
  if (text.length > 2048) throw new RefusedUrlError('is longer than 2048 characters')
  if (!URL.canParse(text)) throw new RefusedUrlError('is not a URL')
  const url = new URL(text)
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    throw new RefusedUrlError('is not an http(s) URL')
  if (url.username || url.password) throw new RefusedUrlError('must not hold credentials')
  // The URL parser has made dotted addresses of spellings such as 2130706433 or 0x7f.1.
  const host = url.hostname.replace(/^\[|\]$/g, '')
  if (isIP(host) && isRefusedAddress(host)) throw new RefusedUrlError('is an address that must not be called')
  return url
}

/** Resolves a name, but refuses it if any address is refused: what is checked is what is connected to. */
export const guardedLookup: LookupFunction = (hostname, options, callback) => {
  dnsLookup(hostname, { ...options, all: true }, (error, addresses: LookupAddress[]) => {
    if (error) return callback(error, '', 4)
    if (addresses.length === 0 || addresses.some(({ address }) => isRefusedAddress(address))) {
      return callback(new RefusedUrlError('names an address that must not be called'), '', 4)
    }
    if (options.all) return callback(null, addresses as unknown as string, 4)
    callback(null, addresses[0].address, addresses[0].family)
  })
}
