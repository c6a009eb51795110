import { randomInt } from 'node:crypto'
import t from 'tap'
import { CouchDatabase } from '../../lib/couch/database.js'
import { Repository } from '../../lib/repository/repository.js'
import { Keyring } from '../../lib/seal/keyring.js'
import { clientOf } from '../helpers/couch-client.js'
import { encryptionOf } from '../helpers/sealed.js'
import { wholeNumber } from '../helpers/settings.js'
import { setupTampered } from '../helpers/tampering.js'

/** Bits that are changed, each in a chunk that is sealed and stored. */
const FLIPS = wholeNumber('FLIPS', 10_000)
/** One of so many is also tried by get and restore of a host. */
const WHOLE = 100

t.test(
  `${FLIPS} bits, each changed by itself at a random place of a stored chunk, are all found`,
  async (t) => {
    const on = await setupTampered(t)
    const keyring = new Keyring(encryptionOf('k1'), 1000)
    const db = new CouchDatabase(clientOf(t, on.on.url), on.on.names.backups)
    const backup = await new Repository(db, { keyring }).get(on.id)
    const ids = on.chunks.filter((id) => id.includes('_components_')).slice(0, 2)
    const stored = new Map(await Promise.all(ids.map(async (id) => [id, await on.readChunk(id)] as const)))
    const verify = async () => (await backup.documents('components'))!.verify()
    let missed = 0
    for (let i = 0; i < FLIPS; i++) {
      const id = ids[i % ids.length]!
      const changed = Buffer.from(stored.get(id)!)
      const bit = randomInt(changed.length * 8)
      changed[bit >> 3]! ^= 1 << (bit & 7)
      await on.writeChunk(id, changed)
      const found = await verify().then(
        () => false,
        ({ code }) => code === 'DB_BACKUPS_DAMAGED'
      )
      if (!found) missed++
      if (i % WHOLE === 0) t.strictSame(await on.unnoticed(), [], `bit ${bit} of ${id}`)
      await on.writeChunk(id, stored.get(id)!)
    }
    t.equal(missed, 0)
    await verify()
  }
)
