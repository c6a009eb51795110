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
    // that of an unknown user takes as long, so that the time does not tell
    scrypt(password, known?.salt ?? '', HASH_BYTES, (error, given) => {
      const hash = Buffer.from(known?.hashed_secret ?? '', 'hex')
      cb(error === null && hash.length === HASH_BYTES && timingSafeEqual(hash, given))
    })
  },

  // random, and too long to be guessed, so that no slow hash is needed
  hash_api_secret: (secret) => sha256(secret).toString('hex'),

  verify_api_secret: (secret, hashed_secret) =>
    timingSafeEqual(sha256(secret), Buffer.from(hashed_secret, 'hex'))
}
