import { InvalidParameterError, TooLargeError } from '../errors.js'

/** Longest name in bytes of UTF-8: 128 characters of any kind. */
const MAX_NAME = 512

/** Checks the name of what is appended to a backup. @throws InvalidParameterError */
export function checkAttachmentName(name: string): void {
  if (name === '') throw new InvalidParameterError('att_name is empty')
  if (name.startsWith('_')) throw new InvalidParameterError('att_name must not begin with an underscore')
  if (Buffer.byteLength(name) > MAX_NAME)
    throw new InvalidParameterError(`att_name is longer than ${MAX_NAME} bytes`)
  if (!name.isWellFormed()) throw new InvalidParameterError('att_name is not well-formed Unicode')
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  if (/[\u0000-\u001f\u007f]/.test(name)) throw new InvalidParameterError('att_name holds control characters')
}

export const attachmentTooLarge = (limit: number) =>
  new TooLargeError(`body/attachment is larger than ${limit} bytes`)
