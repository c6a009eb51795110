import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { openApiDocument } from './document.js'

const FILE = join(__dirname, '../../docs/openapi.json')

openApiDocument()
  .then((document) => writeFile(FILE, `${JSON.stringify(document, undefined, 2)}\n`))
  .catch((error: Error) => {
    console.error(error.message)
    process.exit(1)
  })
