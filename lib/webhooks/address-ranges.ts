import { isIPv6 } from 'node:net'
import ipaddr from 'ipaddr.js'

type Address = ipaddr.IPv4 | ipaddr.IPv6

/** Ranges that may be called, as the library names them. All its other ranges are refused. */
const CALLED = new Set(['unicast', 'loopback', 'private', 'uniqueLocal'])

/** Ranges with an IPv4 address inside, which decides, by the byte at which it begins. */
const IPV4_AT: Record<string, number | undefined> = { ipv4Mapped: 12, rfc6145: 12, rfc6052: 12, '6to4': 2 }

/** Refused subnets that the library does not name, or names otherwise. */
export const REFUSED_SUBNETS = [
  // AWS, Azure, Google, Oracle, Alibaba and Scaleway give out credentials here.
  '169.254.169.254/32',
  '168.63.129.16/32',
  '100.100.100.200/32',
  '192.0.0.192/32',
  'fd00:ec2::/32',
  'fd20:ce::/32',
  'fd00:c1::/32',
  'fd00:42::42/128',
  // Local NAT64, where the IPv4 address may begin at several places.
  '64:ff9b:1::/48'
]

const REFUSED = REFUSED_SUBNETS.map((subnet) => ipaddr.parseCIDR(subnet))

/** All globally allocated IPv6. The library calls the rest unicast as well. */
const GLOBAL_UNICAST = ipaddr.parseCIDR('2000::/3')

/** Returns whether an address, valid by `net.isIP`, must not be connected to. */
export function isRefusedAddress(address: string): boolean {
  // A zone marks a link-local address.
  return address.includes('%') || isRefused(ipaddr.parse(withoutDots(address)))
}

/** Spells an IPv6 address without dots, as URLs do: the library takes `::10.0.0.1` for `::ffff:10.0.0.1`. */
const withoutDots = (address: string): string =>
  isIPv6(address) ? new URL(`http://[${address}]`).hostname.slice(1, -1) : address

function isRefused(address: Address): boolean {
  if (REFUSED.some((subnet) => isIn(address, subnet))) return true
  const range = address.range()
  const ipv4At = IPV4_AT[range]
  if (ipv4At !== undefined)
    return isRefused(ipaddr.fromByteArray(address.toByteArray().slice(ipv4At, ipv4At + 4)))
  if (range === 'unicast' && address.kind() === 'ipv6') return !isIn(address, GLOBAL_UNICAST)
  return !CALLED.has(range)
}

const isIn = (address: Address, [network, bits]: [Address, number]): boolean =>
  network.kind() === address.kind() && address.match(network, bits)
