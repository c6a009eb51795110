import { dbBackups } from './index.js'

export default dbBackups
export * from './index.js'
