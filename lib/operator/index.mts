import { operator } from './index.js'

export default operator
export * from './index.js'
