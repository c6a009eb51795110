import { isIPv6 } from 'node:net'
import ipaddr from 'ipaddr.js'

/**
 * What is decided of a range: to call it, to refuse it, or to decide by the IPv4 address inside, which stands in the bytes
 * from `ipv4At` on.
 */
export interface AddressRange {
  name: string
  subnets: readonly string[]
  decision: 'called' | 'refused' | { ipv4At: number }
}

/**
 * Every special range of IANA's registries of IPv4 and IPv6 addresses, and the addresses at which clouds give out
 * credentials. The first that holds an address counts.
 */
export const SPECIAL_RANGES: readonly AddressRange[] = [
  {
    name: 'cloud metadata (AWS, Azure, Google, Oracle, Alibaba, Scaleway)',
    subnets: [
      '169.254.169.254/32',
      '168.63.129.16/32',
      '100.100.100.200/32',
      '192.0.0.192/32',
      'fd00:ec2::/32',
      'fd20:ce::/32',
      'fd00:c1::/32',
      'fd00:42::42/128'
    ],
    decision: 'refused'
  },
  { name: 'loopback', subnets: ['127.0.0.0/8', '::1/128'], decision: 'called' },
  { name: 'private use', subnets: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16'], decision: 'called' },
  { name: 'unique local', subnets: ['fc00::/7'], decision: 'called' },
  { name: 'unspecified, this network', subnets: ['0.0.0.0/8', '::/128'], decision: 'refused' },
  { name: 'link-local', subnets: ['169.254.0.0/16', 'fe80::/10'], decision: 'refused' },
  { name: 'site-local', subnets: ['fec0::/10'], decision: 'refused' },
  { name: 'shared with a provider (carrier-grade NAT)', subnets: ['100.64.0.0/10'], decision: 'refused' },
  { name: 'protocol assignments', subnets: ['192.0.0.0/24'], decision: 'refused' },
  {
    name: 'documentation',
    subnets: ['192.0.2.0/24', '198.51.100.0/24', '203.0.113.0/24', '2001:db8::/32', '3fff::/20'],
    decision: 'refused'
  },
  { name: 'benchmarking', subnets: ['198.18.0.0/15', '2001:2::/48'], decision: 'refused' },
  {
    name: 'AS112',
    subnets: ['192.31.196.0/24', '192.175.48.0/24', '2001:4:112::/48', '2620:4f:8000::/48'],
    decision: 'refused'
  },
  { name: 'AMT', subnets: ['192.52.193.0/24', '2001:3::/32'], decision: 'refused' },
  { name: '6to4 relays', subnets: ['192.88.99.0/24'], decision: 'refused' },
  { name: 'multicast', subnets: ['224.0.0.0/4', 'ff00::/8'], decision: 'refused' },
  { name: 'limited broadcast', subnets: ['255.255.255.255/32'], decision: 'refused' },
  { name: 'reserved', subnets: ['240.0.0.0/4'], decision: 'refused' },
  { name: 'IPv4-mapped', subnets: ['::ffff:0:0/96'], decision: { ipv4At: 12 } },
  { name: 'IPv4-translated', subnets: ['::ffff:0:0:0/96'], decision: { ipv4At: 12 } },
  { name: 'NAT64', subnets: ['64:ff9b::/96'], decision: { ipv4At: 12 } },
  { name: '6to4', subnets: ['2002::/16'], decision: { ipv4At: 2 } },
  { name: 'IPv4-compatible', subnets: ['::/96'], decision: 'refused' },
  { name: 'NAT64 of one network', subnets: ['64:ff9b:1::/48'], decision: 'refused' },
  { name: 'discard-only, dummy', subnets: ['100::/64', '100:0:0:1::/64'], decision: 'refused' },
  { name: 'Teredo', subnets: ['2001::/32'], decision: 'refused' },
  { name: 'ORCHID', subnets: ['2001:10::/28', '2001:20::/28'], decision: 'refused' },
  { name: 'drone identities', subnets: ['2001:30::/28'], decision: 'refused' },
  { name: 'protocol assignments', subnets: ['2001::/23'], decision: 'refused' },
  { name: 'segment routing (SRv6)', subnets: ['5f00::/16'], decision: 'refused' },
  { name: 'other global unicast', subnets: ['0.0.0.0/0', '2000::/3'], decision: 'called' },
  { name: 'not allocated', subnets: ['::/0'], decision: 'refused' }
]

const PARSED = SPECIAL_RANGES.flatMap(({ subnets, decision }) =>
  subnets.map((subnet) => {
    const [network, bits] = ipaddr.parseCIDR(subnet)
    return { network, bits, decision }
  })
)

/** Whether an address that `net.isIP` takes must not be connected to. */
export function isRefusedAddress(address: string): boolean {
  // A zone marks an address of one link.
  return address.includes('%') || isRefused(ipaddr.parse(withoutDots(address)))
}

/** Spells an IPv6 address without dots, as URLs do: the library takes `::10.0.0.1` for `::ffff:10.0.0.1`. */
const withoutDots = (address: string): string =>
  isIPv6(address) ? new URL(`http://[${address}]`).hostname.slice(1, -1) : address

function isRefused(address: ipaddr.IPv4 | ipaddr.IPv6): boolean {
  const range = PARSED.find(
    ({ network, bits }) => network.kind() === address.kind() && address.match(network, bits)
  )
  if (typeof range?.decision !== 'object') return range?.decision !== 'called'
  const { ipv4At } = range.decision
  return isRefused(ipaddr.fromByteArray(address.toByteArray().slice(ipv4At, ipv4At + 4)))
}
