// tap follows every promise by an async hook, to tell which test an error belongs to that nobody catches: a fifth of the
// processor time of the suite. Without it such an error ends the process, which fails the file.
const hooks = require('node:async_hooks')

const { createHook } = hooks
const nothing = {
  enable: () => nothing,
  disable: () => nothing
}
hooks.createHook = (callbacks) => (callbacks.init && callbacks.destroy ? nothing : createHook(callbacks))
