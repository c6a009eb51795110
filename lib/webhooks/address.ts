import { lookup as dnsLookup, type LookupAddress } from 'node:dns'
import { BlockList, isIP, type LookupFunction } from 'node:net'

/** A URL that the server must not call. The message does not hold the URL. */
export class RefusedUrlError extends Error {
  override readonly name = 'RefusedUrlError'
}

/** Link-local, cloud metadata, and addresses that are no host's. Loopback and private ranges are not refused. */
const refused = new BlockList()
refused.addSubnet('0.0.0.0', 8, 'ipv4')
refused.addSubnet('169.254.0.0', 16, 'ipv4')
refused.addSubnet('192.0.0.0', 24, 'ipv4')
refused.addAddress('100.100.100.200', 'ipv4')
refused.addAddress('168.63.129.16', 'ipv4')
refused.addSubnet('224.0.0.0', 3, 'ipv4')
refused.addAddress('::', 'ipv6')
refused.addSubnet('fe80::', 10, 'ipv6')
refused.addSubnet('fd00:ec2::', 32, 'ipv6')
refused.addSubnet('fd20:ce::', 32, 'ipv6')
refused.addSubnet('ff00::', 8, 'ipv6')
// Local-use NAT64, whose IPv4 address stands where its network chose, and Teredo, which hides it.
refused.addSubnet('64:ff9b:1::', 48, 'ipv6')
refused.addSubnet('2001::', 32, 'ipv6')

/** Whether an address, in any spelling that `net.isIP` takes, must not be connected to. */
function isRefusedAddress(address: string): boolean {
  const family = isIP(address)
  if (family === 4) return refused.check(address, 'ipv4')
  if (family !== 6) return true
  // Only the zone's absence makes it comparable; a zone marks a link-local address anyway.
  if (address.includes('%')) return true
  if (refused.check(address, 'ipv6')) return true
  const embedded = embeddedIpv4(address)
  return embedded !== undefined && refused.check(embedded, 'ipv4')
}

/** The IPv4 address inside an IPv4-mapped or -compatible, NAT64 or 6to4 address. */
function embeddedIpv4(address: string): string | undefined {
  const groups = ipv6Groups(address)
  const dotted = (high: number, low: number) => `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`
  const zeros = (count: number) => groups.slice(0, count).every((group) => group === 0)
  if (zeros(5) && (groups[5] === 0xffff || groups[5] === 0)) return dotted(groups[6], groups[7])
  if (zeros(4) && groups[4] === 0xffff && groups[5] === 0) return dotted(groups[6], groups[7])
  if (groups[0] === 0x64 && groups[1] === 0xff9b) return dotted(groups[6], groups[7])
  if (groups[0] === 0x2002) return dotted(groups[1], groups[2])
  return undefined
}

function ipv6Groups(address: string): number[] {
  // The URL parser writes every IPv6 address in one way, without dots.
  const text = new URL(`http://[${address}]`).hostname.slice(1, -1)
  const [head, tail] = text.split('::')
  const parse = (part: string | undefined) =>
    part ? part.split(':').map((group) => Number.parseInt(group, 16)) : []
  const first = parse(head)
  const last = parse(tail)
  return [...first, ...Array<number>(8 - first.length - last.length).fill(0), ...last]
}

/**
 * Checks what can be told from a webhook's URL alone.
 * @throws RefusedUrlError
 */
export function parseWebhookUrl(text: string): URL {
  if (text.length > 2048) throw new RefusedUrlError('is longer than 2048 characters')
  let url: URL
  try {
    url = new URL(text)
  } catch {
    throw new RefusedUrlError('is not a URL')
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    throw new RefusedUrlError('is not an http(s) URL')
  if (url.username || url.password) throw new RefusedUrlError('must not hold credentials')
  // Spellings such as 2130706433 or 0x7f.1 have become dotted addresses here.
  const host = url.hostname.replace(/^\[|\]$/g, '')
  if (isIP(host) && isRefusedAddress(host)) throw new RefusedUrlError('is an address that must not be called')
  return url
}

/** For connections: resolves a name and refuses it when any of its addresses is refused, so what is checked is what is connected to. */
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
