import { beganAt } from './api.mjs'
import { announce } from './element.mjs'
import { explain } from './explain.mjs'
import { dateTime } from './format.mjs'
import { showFormError } from './notices.mjs'

/**
 * Completes the dialog of an inspection around its own fields. Its form inspects a backup and shows the outcome.
 * @param title of the dialog
 * @param submit text of the button that begins
 * @param working text while the inspection runs
 * @param look inspects: takes `backup`, `form`, `signal`, and `begun(id)` to pass on the id of the operation on the
 * server. Returns `outcome`, a text or nodes, and `items` of a list, if any
 * @param interrupt ends a run of `look` that the operator no longer waits for; called once for a run. Takes the `abort`
 * controller of the signal, the `id` that `begun` was given, and whether the run `isOver`. Default: aborts the signal
 * @returns a function that opens the dialog for a backup, and resolves when it is closed
 */
export function inspection(id, { title, submit: verb, working, look, interrupt }) {
  const dialog = document.getElementById(id)
  const fields = [...dialog.childNodes]
  dialog.append(document.getElementById('inspection').content.cloneNode(true))
  const form = dialog.querySelector('form')
  const find = (name) => form.querySelector(`[data-${name}]`)
  const submit = form.querySelector('[type=submit]')
  find('fields').replaceWith(...fields)
  find('title').textContent = title
  find('title').id = dialog.getAttribute('aria-labelledby')
  find('begin').textContent = verb
  find('stop').hidden = true
  let backup
  /** The run of `look` that the dialog waits for. */
  let waiting

  function show(outcome = '', items = []) {
    find('outcome').replaceChildren(...[outcome].flat())
    find('list').replaceChildren(...items)
    find('list').hidden = items.length === 0
  }

  async function run() {
    const abort = new AbortController()
    const own = { abort, id: undefined, isInterrupted: false, isOver: false }
    waiting = own
    submit.ariaDisabled = 'true'
    find('stop').ariaDisabled = null
    find('stop').hidden = interrupt === undefined
    show(working)
    showFormError(form, '')
    announce(working)
    try {
      const { outcome, items } = await look({
        backup,
        form,
        signal: abort.signal,
        begun(id) {
          own.id = id
        }
      })
      if (waiting !== own) return
      show(outcome, items)
      announce(find('outcome').textContent)
    } catch (error) {
      if (waiting !== own) return
      show()
      showFormError(form, explain(error))
    } finally {
      own.isOver = true
      if (waiting === own) end()
    }
  }

  function end() {
    waiting = undefined
    submit.ariaDisabled = null
    find('stop').hidden = true
  }

  /** Leaves the current run, whose outcome is no longer shown. */
  function leave() {
    const left = waiting
    if (!left) return
    end()
    if (interrupt) interruptOnce(left)
    else left.abort.abort()
  }

  function interruptOnce(run) {
    if (run.isInterrupted) return
    run.isInterrupted = true
    interrupt(run)
  }

  form.addEventListener('submit', (event) => {
    event.preventDefault()
    if (!waiting) run()
  })
  find('stop').addEventListener('click', () => {
    if (!waiting || waiting.isInterrupted) return
    find('stop').ariaDisabled = 'true'
    announce('Interrupting.')
    interruptOnce(waiting)
  })
  find('close').addEventListener('click', () => dialog.close())
  dialog.addEventListener('close', leave)

  return async (asked, prepare) => {
    backup = asked
    form.reset()
    show()
    showFormError(form, '')
    find('source').textContent = `The backup of ${dateTime(beganAt(backup.id))}, ${backup.id}`
    prepare?.(form)
    dialog.showModal()
    find('title').focus()
    await new Promise((resolve) => dialog.addEventListener('close', resolve, { once: true }))
  }
}
