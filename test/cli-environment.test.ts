import t from 'tap'
import { readEnvironment } from '../lib/cli/environment.js'

const GOOD = {
  BACKUPS_URL: 'https://console.example.com',
  BACKUPS_API_KEY: 'key',
  BACKUPS_API_SECRET: 'a:secret'
}

t.test('key and secret, or a token, are read from the environment', async (t) => {
  const { authorization, url } = readEnvironment(GOOD)
  t.equal(authorization, `Basic ${Buffer.from('key:a:secret').toString('base64')}`)
  t.equal(url.href, 'https://console.example.com/')
  const withToken = readEnvironment({ BACKUPS_URL: 'http://127.0.0.1:3000/base//', BACKUPS_TOKEN: 'abc' })
  t.equal(withToken.authorization, 'Bearer abc')
  t.equal(withToken.url.pathname, '/base')
})

t.test('the message names what is missing or wrong, and holds no secret', async (t) => {
  for (const [name, value] of [
    ['BACKUPS_URL', undefined],
    ['BACKUPS_URL', ''],
    ['BACKUPS_URL', 'nowhere'],
    ['BACKUPS_URL', 'ftp://console.example.com'],
    ['BACKUPS_URL', 'https://key:secret@console.example.com'],
    ['BACKUPS_URL', 'https://console.example.com?secret=1'],
    ['BACKUPS_API_KEY', undefined],
    ['BACKUPS_API_KEY', 'a:b'],
    ['BACKUPS_API_SECRET', undefined],
    ['BACKUPS_TOKEN', 'secret']
  ] as const) {
    t.throws(
      () => readEnvironment({ ...GOOD, [name]: value }),
      { exitCode: 2, message: new RegExp(`^${name} (?!.*secret[@=])`) },
      `${name}=${value}`
    )
  }
  t.throws(() => readEnvironment({ BACKUPS_URL: GOOD.BACKUPS_URL, BACKUPS_TOKEN: 'a\nb' }), {
    exitCode: 2,
    message: /BACKUPS_TOKEN/
  })
})
