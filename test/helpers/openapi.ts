import type { OpenAPIV3_1 } from 'openapi-types'

interface DocumentedOperation {
  path: string
  method: string
  operation: OpenAPIV3_1.OperationObject
}

/** Lists all operations of an OpenAPI document. */
export function operationsOf(document: OpenAPIV3_1.Document): DocumentedOperation[] {
  return Object.entries(document.paths!).flatMap(([path, item]) =>
    Object.entries(item!).map(([method, operation]) => ({
      path,
      method,
      operation: operation as OpenAPIV3_1.OperationObject
    }))
  )
}
