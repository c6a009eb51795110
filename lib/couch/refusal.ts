import { STATUS_CODES } from 'node:http'
import { retryAfter } from '../waits/retry-after.js'
import { CouchError, isNodeDown, isRequestTooLarge, isUnavailable } from './errors.js'
import { type CouchResponse, collect, isJson } from './response.js'

/** A failure that CouchDB, or something before it, answers with. */
interface Refusal {
  error: string
  reason: string
  /** Something before CouchDB has answered. */
  gateway: boolean
}

type Answer = Pick<CouchResponse, 'status' | 'headers'>

/** Bytes of an answer that tells why there is no other. */
const MAX_TOLD = 1024 * 1024

/** Makes the error for an answer of a failure status. @param sent bytes of the request's body, if known */
export async function refusal(
  what: string,
  response: CouchResponse,
  sent: number | undefined
): Promise<CouchError> {
  const { status, headers } = response
  const { json, brokenOff } = await bodyOfAnswer(response)
  if (brokenOff && !saysEnough(status)) return unfinished(what, status, brokenOff)
  const { error, reason, gateway } = refusalOf(response, json, sent)
  const redirect = status < 400
  const isOfLength = status === 413 && (gateway || isRequestTooLarge({ status, error }))
  return new CouchError(what, {
    status: redirect ? 0 : status,
    error: redirect ? 'bad_answer' : error,
    reason,
    gateway,
    // `connect` is asked again after a 401: passwords rotate. A refused document stays refused.
    retryable:
      redirect ||
      (error !== 'doc_validation' &&
        (status >= 500 || status === 429 || status === 408 || status === 401 || isNodeDown({ error }))),
    retryAfter: retryAfter(headers['retry-after']),
    sent: isOfLength ? sent : undefined
  })
}

/** The body of an answer, as far as it arrived. */
interface AnswerBody {
  /** The parsed body; `undefined` where it is not JSON. */
  json?: unknown
  /** Why it did not arrive to its end. */
  brokenOff?: CouchError
}

/** Statuses that mean the same whatever the answer tells, and those after which a request is repeated anyway. */
const saysEnough = (status: number): boolean =>
  status < 400 || status >= 500 || [401, 408, 409, 413, 429].includes(status)

/** Reads the JSON of an answer. */
async function bodyOfAnswer({ headers, body }: CouchResponse): Promise<AnswerBody> {
  try {
    if (isJson(headers)) return { json: JSON.parse((await collect(body, MAX_TOLD)).toString()) }
    for await (const _ of body) break
  } catch (error) {
    if (isJson(headers) && isUnavailable(error)) return { brokenOff: error }
  }
  return {}
}

/** Makes the error for a refusal that broke off before it told whose it is: nothing is known of what was asked for. */
const unfinished = (what: string, status: number, cause: CouchError): CouchError =>
  new CouchError(what, {
    error: cause.error,
    reason: `the answer of status ${status} broke off: ${cause.reason}`,
    retryable: true,
    cause
  })

/** Returns the error for an answer that is not JSON, such as a gateway's page of any status. */
export function notJson(what: string, answer: Answer): CouchError {
  const type = /^[\w.+-]+\/[\w.+-]+/.exec(String(answer.headers['content-type'] ?? ''))?.[0].slice(0, 60)
  const reason = `the answer is not JSON: ${gatewayOf(answer)} answered ${answer.status} ${type ? `with ${type}` : 'without a type'}; let "couch" name the address of CouchDB itself, or let requests pass`
  return new CouchError(what, { error: 'bad_answer', reason, gateway: true, retryable: true })
}

/** Reads CouchDB's `error` and `reason`. Other answers may hold anything, so nothing of them is passed on. */
function refusalOf(answer: Answer, told: unknown, sent?: number): Refusal {
  const { error, reason } = detailsOf(told)
  const status = `${answer.status} ${STATUS_CODES[answer.status] ?? ''}`.trim()
  const code = typeof error === 'string' ? error : String(answer.status)
  if (isRequestTooLarge({ status: answer.status, error: code })) {
    const own = `CouchDB answered ${status}${lengthAdvice('raise chttpd/max_http_request_size', sent)}`
    return { error: code, reason: isText(reason) ? `${reason}; ${own}` : own, gateway: false }
  }
  const ofProxy = answer.status === 413 && !isCouch(answer) && !TOO_LARGE.has(code)
  if (isText(reason) && !ofProxy) return { error: code, reason, gateway: false }
  if (!ofProxy && (isCouch(answer) || CODE.test(String(error ?? ''))))
    return { error: code, reason: `CouchDB answered ${status} and told nothing more`, gateway: false }
  const foreign = `${gatewayOf(answer)} answered ${status}${advice(answer.status, sent)}`
  return { error: String(answer.status), reason: foreign, gateway: true }
}

const TOO_LARGE = new Set(['too_large', 'document_too_large', 'attachment_too_large'])

const isText = (value: unknown): value is string => typeof value === 'string' && value !== ''

/** CouchDB's own errors are such words. Design functions may refuse by any text, with a reason. */
const CODE = /^[a-z_]+$/

/** Returns `error` and `reason`: when a shard is lost, the rows of a `_bulk_docs` hold them. */
function detailsOf(told: unknown): { error?: unknown; reason?: unknown } {
  const details: unknown = Array.isArray(told) ? told.find((row) => row?.error) : told
  return typeof details === 'object' && details !== null ? details : {}
}

/** Returns whether an answer's head names CouchDB: answers to HEAD have nothing else that tells. */
const isCouch = ({ headers }: Answer): boolean =>
  /^CouchDB\//.test(String(headers.server)) || headers['x-couch-request-id'] !== undefined

function gatewayOf({ headers }: Answer): string {
  const product = /^[A-Za-z][A-Za-z0-9_.-]{0,30}/.exec(String(headers.server ?? ''))?.[0]
  return `a proxy or gateway before CouchDB${product ? ` (${product})` : ''}`
}

const REACH = 'check that it reaches CouchDB'
const SLOW = 'raise its time-outs (nginx: proxy_read_timeout)'
const LONG = 'raise its limits of request lines and heads (nginx: large_client_header_buffers)'
const RIGHTS = 'let the requests of this server pass'
const ADVICE: Record<number, string> = {
  301: 'let "couch" name the address that it leads to',
  400: RIGHTS,
  401: RIGHTS,
  403: RIGHTS,
  404: 'check the address and path of "couch"',
  405: RIGHTS,
  407: 'let the dispatcher of "couch" give the credentials that it asks for',
  408: SLOW,
  414: LONG,
  429: 'raise the rate of requests that it takes',
  431: LONG,
  500: REACH,
  502: REACH,
  503: REACH,
  504: SLOW
}

function advice(status: number, sent: number | undefined): string {
  if (status === 413) return lengthAdvice('raise its limit of bodies (nginx: client_max_body_size)', sent)
  const told = ADVICE[status >= 300 && status < 400 ? 301 : status]
  return told === undefined ? '' : `: ${told}`
}

/** @param remedy how to have longer requests taken */
function lengthAdvice(remedy: string, sent: number | undefined): string {
  const length = sent === undefined ? '' : ` to ${sent} bytes`
  return `${length}: ${remedy}, or set limits.requestBytes, which divides what holds several documents`
}
