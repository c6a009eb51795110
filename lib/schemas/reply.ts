import { type Static, type TSchema, type TUnsafe, Type } from '@sinclair/typebox'

/** Examples by name, as OpenAPI has them. */
export type Examples<T> = Record<string, { summary: string; value: T }>

export interface ReplySchema<T extends TSchema> {
  description: string
  headers?: Record<string, object>
  content: { 'application/json': { schema: TUnsafe<Static<T>>; examples: Examples<Static<T>> } }
}

/** Refers to a schema by its `$id`, so that OpenAPI documents name it once. */
export const ref = <T extends TSchema>(schema: T) => Type.Unsafe<Static<T>>({ $ref: `${schema.$id}#` })

/** Describes a reply. Nothing is serialized by it. */
export const reply = <T extends TSchema>(
  description: string,
  schema: T,
  examples: Examples<Static<T>>,
  headers?: Record<string, object>
): ReplySchema<T> => ({
  description,
  ...(headers && { headers }),
  content: { 'application/json': { schema: ref(schema), examples } }
})
