import { createRequire } from 'node:module'

/** A command of WebDriver BiDi that Playwright sends for every context, and Firefox 153 does not know. */
const UNKNOWN = 'emulation.setMediaFeaturesOverride'

interface Socket {
  send(text: string, ...rest: unknown[]): unknown
  emit(event: 'message', data: Buffer, isBinary: boolean): boolean
}

let isAnswered = false

/**
 * Has Playwright believe that Firefox emulates media features: without an answer, no context can be made. Preferences
 * of the browser set them instead.
 */
export function answerMediaFeatures(): void {
  if (isAnswered) return
  isAnswered = true
  const { ws } = createRequire(__filename)('playwright-core/lib/utilsBundle') as {
    ws: { prototype: Socket }
  }
  const { send } = ws.prototype
  ws.prototype.send = function (this: Socket, text: string, ...rest: unknown[]) {
    if (!String(text).includes(`"${UNKNOWN}"`)) return send.call(this, text, ...rest)
    const { id } = JSON.parse(text) as { id: number }
    const reply = Buffer.from(JSON.stringify({ type: 'success', id, result: {} }))
    setImmediate(() => this.emit('message', reply, false))
  }
}
