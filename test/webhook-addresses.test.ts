import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import ipaddr from 'ipaddr.js'
import t from 'tap'
import { guardedLookup, parseWebhookUrl } from '../lib/webhooks/address.js'
import { isRefusedAddress, REFUSED_SUBNETS } from '../lib/webhooks/address-ranges.js'

/** First and last address of each range, with what is to become of them, and of where a range inside begins. */
const REFUSED = [
  '0.0.0.0-0.255.255.255',
  '100.64.0.0-100.127.255.255',
  '168.63.129.16-168.63.129.16',
  '169.254.0.0-169.254.255.255',
  '192.0.0.0-192.0.0.255',
  '192.0.2.0-192.0.2.255',
  '192.31.196.0-192.31.196.255',
  '192.52.193.0-192.52.193.255',
  '192.88.99.0-192.88.99.255',
  '192.175.48.0-192.175.48.255',
  '198.18.0.0-198.19.255.255',
  '198.51.100.0-198.51.100.255',
  '203.0.113.0-203.0.113.255',
  '224.0.0.0-239.255.255.255',
  '240.0.0.0-255.255.255.255',
  '::-::',
  '::2-::ffff:ffff',
  '64:ff9b:1::-64:ff9b:1:ffff:ffff:ffff:ffff:ffff',
  '100::-100::ffff:ffff:ffff:ffff',
  '100:0:0:1::-100::1:ffff:ffff:ffff:ffff',
  '2001::-2001:0:ffff:ffff:ffff:ffff:ffff:ffff',
  '2001:2::-2001:2:0:ffff:ffff:ffff:ffff:ffff',
  '2001:3::-2001:3:ffff:ffff:ffff:ffff:ffff:ffff',
  '2001:4:112::-2001:4:112:ffff:ffff:ffff:ffff:ffff',
  '2001:10::-2001:1f:ffff:ffff:ffff:ffff:ffff:ffff',
  '2001:20::-2001:2f:ffff:ffff:ffff:ffff:ffff:ffff',
  '2001:30::-2001:3f:ffff:ffff:ffff:ffff:ffff:ffff',
  '2001::-2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff',
  '2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff',
  '2620:4f:8000::-2620:4f:8000:ffff:ffff:ffff:ffff:ffff',
  '3fff::-3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff',
  '4000::-5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
  '5f00::-5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
  '6000::-fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
  'fd00:42::42-fd00:42::42',
  'fd00:c1::-fd00:c1:ffff:ffff:ffff:ffff:ffff:ffff',
  'fd00:ec2::-fd00:ec2:ffff:ffff:ffff:ffff:ffff:ffff',
  'fd20:ce::-fd20:ce:ffff:ffff:ffff:ffff:ffff:ffff',
  'fe00::-fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
  'fe80::-febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
  'fec0::-feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
  'ff00::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'
]

const CALLED = [
  '1.0.0.0-9.255.255.255',
  '10.0.0.0-10.255.255.255',
  '11.0.0.0-100.63.255.255',
  '100.128.0.0-126.255.255.255',
  '127.0.0.0-127.255.255.255',
  '128.0.0.0-169.253.255.255',
  '169.255.0.0-172.15.255.255',
  '172.16.0.0-172.31.255.255',
  '192.0.1.0-192.0.1.255',
  '192.168.0.0-192.168.255.255',
  '198.17.255.255-198.17.255.255',
  '198.20.0.0-198.51.99.255',
  '203.0.114.0-223.255.255.255',
  '::1-::1',
  '2000::-2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
  '2001:200::-2001:db7:ffff:ffff:ffff:ffff:ffff:ffff',
  '2001:db9::-2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
  '2003::-3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
  '3fff:1000::-3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
  'fc00::-fcff:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
  'fd00::-fd00::ffff',
  'fdff::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'
]

type Address = ipaddr.IPv4 | ipaddr.IPv6
type Subnet = [Address, number]

const isIn = (address: Address, network: Address, bits: number) =>
  network.kind() === address.kind() && address.match(network, bits)

function lastOf(network: Address, bits: number): Address {
  const bytes = network.toByteArray()
  return ipaddr.fromByteArray(bytes.map((byte, i) => byte | (0xff >> Math.min(8, Math.max(0, bits - 8 * i)))))
}

/** The table of ranges in the docs, in its order. The first range that contains an address counts. */
function tableRanges(): { name: string; decision: string; network: Address; bits: number }[] {
  const page = readFileSync(join(__dirname, '../docs/hosts.md'), 'utf8')
  const start = page.indexOf('### Addresses of webhooks')
  const section = page.slice(start, page.indexOf('\n## ', start))
  const rows = section.split('\n').filter((line) => line.startsWith('| ') && !/^\| (range|-)/.test(line))
  return rows.flatMap((row) => {
    const [name, subnets, decision] = row
      .slice(2, -2)
      .split('|')
      .map((cell) => cell.trim())
    return [...subnets!.matchAll(/`([^`]+)`/g)].map(([, subnet]) => {
      const [network, bits] = ipaddr.parseCIDR(subnet!)
      return { name: name!, decision: decision!, network, bits }
    })
  })
}

const ends = (ranges: readonly string[]) => ranges.flatMap((range) => range.split('-'))

t.test('the first and the last address of every special range are decided by name', async (t) => {
  for (const address of ends(REFUSED)) t.ok(isRefusedAddress(address), address)
  for (const address of ends(CALLED)) t.notOk(isRefusedAddress(address), address)
  const known = new Set(
    [...ends(REFUSED), ...ends(CALLED)].map((address) => ipaddr.parse(address).toString())
  )
  for (const { decision, name, network } of tableRanges()) {
    if (decision === 'by the IPv4 address inside') continue
    if (/^(other|not allocated|cloud|IPv4-compatible)/.test(name) || network.toString() === '255.255.255.255')
      continue
    t.ok(known.has(network.toString()), `${name} ${network} is tested`)
  }
})

t.test('an address that holds one of IPv4 is decided by that', async (t) => {
  const forms = (v4: string) => {
    const hex = Buffer.from(v4.split('.').map(Number)).toString('hex')
    const [high, low] = [hex.slice(0, 4), hex.slice(4)]
    return [
      `::ffff:${v4}`,
      `::ffff:${high}:${low}`,
      `0:0:0:0:0:FFFF:${high}:${low}`,
      `::ffff:0:${v4}`,
      `64:ff9b::${v4}`,
      `64:ff9b::${high}:${low}`,
      `2002:${high}:${low}::`,
      `2002:${high}:${low}:ffff:ffff:ffff:ffff:ffff`
    ]
  }
  for (const v4 of ends(REFUSED).filter((address) => !address.includes(':')))
    for (const address of forms(v4)) t.ok(isRefusedAddress(address), address)
  for (const v4 of ends(CALLED).filter((address) => !address.includes(':')))
    for (const address of forms(v4)) t.notOk(isRefusedAddress(address), address)
})

t.test('forms that hide an IPv4 address are refused, whatever it is', async (t) => {
  for (const address of [
    '::169.254.169.254',
    '::a9fe:a9fe',
    '::10.0.0.1',
    '::127.0.0.1',
    '64:ff9b:1::a9fe:a9fe',
    '64:ff9b:1:a9fe:0:a9fe::',
    '64:ff9b:1::7f00:1',
    '64:ff9b:2::a9fe:a9fe',
    '64:ff9b:0:0:0:1:a9fe:a9fe',
    '2001:0:4136:e378:8000:63bf:5601:5601',
    'fe80::1%eth0',
    '::1%lo'
  ])
    t.ok(isRefusedAddress(address), address)
})

t.test('odd spellings in a URL are read as the address that they name', async (t) => {
  for (const host of [
    '2852039166',
    '0xa9fea9fe',
    '0251.0376.0251.0376',
    '169.254.43518',
    '169.254.169.254.',
    '%31%36%39.254.169.254',
    '１６９.254.169.254',
    '0x64400001',
    '0144.0100.0.1',
    '100.64.1',
    '[FEC0::1]',
    '[feff:0:0:0:0:0:0:1]',
    '[::169.254.169.254]',
    '[64:FF9B::A9FE:A9FE]',
    '[2002:a9fe:a9fe::]',
    '[::FFFF:100.64.0.1]'
  ]) {
    t.throws(
      () => parseWebhookUrl(`http://${host}/latest`),
      { message: 'is an address that must not be called' },
      host
    )
  }
  for (const host of ['2130706433', '0x7f.1', '[::1]', '[0:0:0:0:0:ffff:7f00:1]', '10.1', 'example.com'])
    t.doesNotThrow(() => parseWebhookUrl(`http://${host}/hook`), host)
})

t.test('an address that a name resolves to is judged in the same way', async (t) => {
  const lookup = (name: string) =>
    new Promise((resolve, reject) => {
      guardedLookup(name, { all: true }, (error, addresses) => (error ? reject(error) : resolve(addresses)))
    })
  for (const address of ['100.64.0.1', 'fec0::1', '::169.254.169.254', '2002:a9fe:a9fe::'])
    await t.rejects(lookup(address), { name: 'RefusedUrlError' }, address)
  t.ok(await lookup('127.0.0.1'))
})

t.test('addresses are decided as the table in the docs says', async (t) => {
  const table = tableRanges()
  const decisionOf = (address: Address): string => {
    const { decision, bits } = table.find((range) => isIn(address, range.network, range.bits))!
    if (decision !== 'by the IPv4 address inside') return decision
    const at = bits === 16 ? 2 : 12
    return decisionOf(ipaddr.fromByteArray(address.toByteArray().slice(at, at + 4)))
  }
  const edges = table.flatMap(({ network, bits }) => [network, lastOf(network, bits)])
  for (const address of [
    ...edges,
    ...[...ends(REFUSED), ...ends(CALLED)].map((text) => ipaddr.parse(text))
  ]) {
    const told = decisionOf(address)
    t.equal(isRefusedAddress(address.toString()) ? 'refused' : 'called', told, address.toString())
  }
})

t.test('the table in the docs has every range that the code and the library know', async (t) => {
  const known = new Set(tableRanges().map(({ network, bits }) => `${network}/${bits}`))
  for (const subnet of REFUSED_SUBNETS) t.ok(known.has(ipaddr.parseCIDR(subnet).join('/')), subnet)
  for (const { prototype } of [ipaddr.IPv4, ipaddr.IPv6]) {
    // a list of subnets, or a single one, which the types do not declare
    const { SpecialRanges: ranges } = prototype as unknown as Record<
      string,
      Record<string, Subnet | Subnet[]>
    >
    for (const [name, subnets] of Object.entries(ranges!)) {
      const list = (Array.isArray(subnets[0]) ? subnets : [subnets]) as Subnet[]
      for (const [network, bits] of list) t.ok(known.has(`${network}/${bits}`), `${name} ${network}/${bits}`)
    }
  }
})
