import type { SwaggerTransformObject } from '@fastify/swagger'
import type { OpenAPIV3_1 } from 'openapi-types'

/** A host's `transformObject`: @fastify/swagger calls every body required, a restore by id takes none as well. */
export const optionalBody: SwaggerTransformObject = (given) => {
  const { openapiObject: document } = given as { openapiObject: OpenAPIV3_1.Document }
  for (const item of Object.values(document.paths ?? {})) {
    const { operationId, requestBody } = item?.put ?? {}
    if (requestBody && operationId?.startsWith('restoreBackup'))
      Object.assign(requestBody, { required: false })
  }
  return document
}
