// Leaves out hooks of the runner that cost a fifth of the processor time, in tests and in the processes that they start.

// The first hook follows every promise, to tell which test an uncaught error belongs to. Without the hook such an error
// ends the process, which fails the file.
const hooks = require('node:async_hooks')

const { createHook } = hooks
const nothing = {
  enable: () => nothing,
  disable: () => nothing
}
hooks.createHook = (callbacks) => (callbacks.init && callbacks.destroy ? nothing : createHook(callbacks))

// Dependencies call Buffer() as a function. Until Node.js has warned of that once, each call looks at the stack.
const { noDeprecation } = process
process.noDeprecation = true
Buffer(0)
process.noDeprecation = noDeprecation

// The second hook has each process record what it loads, for coverage.
const { ChildProcess } = require('node:child_process')

const { spawn } = ChildProcess.prototype
const isOfRunner = (pair) => pair.startsWith('NODE_OPTIONS=') && pair.includes('@tapjs')
ChildProcess.prototype.spawn = function (options) {
  const envPairs = options.envPairs?.filter((pair) => !isOfRunner(pair))
  return spawn.call(this, { ...options, envPairs })
}
