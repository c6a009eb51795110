// @ts-check
const { createHash, randomBytes, scrypt, scryptSync, timingSafeEqual } = require('node:crypto')

const HASH_BYTES = 32
const sha256 = (/** @type {string} */ text) => createHash('sha256').update(text).digest()

/** @type {import('../types.js').Tools['misc']} */
module.exports = {
  censorEmail(email) {
    const [, first, rest, domain] = /^(.)(.*)(@.*)$/.exec(email ?? '') ?? []
    return domain ? first + '*'.repeat(rest.length) + domain : (email ?? 'unknown')
  },

  salt_password(password) {
    const salt = randomBytes(16).toString('hex')
    return { salt, hashed_secret: scryptSync(password, salt, HASH_BYTES).toString('hex') }
  },

  verify_password(password, known, cb) {
    // hash for an unknown user as well, so that response times do not reveal which users exist
    scrypt(password, known?.salt ?? '', HASH_BYTES, (error, given) => {
      const hash = Buffer.from(known?.hashed_secret ?? '', 'hex')
      cb(error === null && hash.length === HASH_BYTES && timingSafeEqual(hash, given))
    })
  },

  // a fast hash is enough, since secrets are random and too long to guess
  hash_api_secret: (secret) => sha256(secret).toString('hex'),

  verify_api_secret: (secret, hashed_secret) =>
    timingSafeEqual(sha256(secret), Buffer.from(hashed_secret, 'hex'))
}
