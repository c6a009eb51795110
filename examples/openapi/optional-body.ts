import type { SwaggerTransformObject } from '@fastify/swagger'
import type { OpenAPIV3_1 } from 'openapi-types'

/**
 * Marks the body of a restore by id as optional, since @fastify/swagger marks every body as required. A host passes
 * this function to @fastify/swagger as `transformObject`.
 */
export const optionalBody: SwaggerTransformObject = (given) => {
  const { openapiObject: document } = given as { openapiObject: OpenAPIV3_1.Document }
  for (const item of Object.values(document.paths ?? {})) {
    const { operationId, requestBody } = item?.put ?? {}
    if (requestBody && operationId?.startsWith('restoreBackup'))
      Object.assign(requestBody, { required: false })
  }
  return document
}
