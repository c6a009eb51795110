import { Type } from '@sinclair/typebox'

export const EXAMPLE_BACKUP = '03_ibp_db_backup_1592924104038'
export const EXAMPLE_TX = '9f86d081884c7d659a2feaa0c55ad015'
export const EXAMPLE_WEBHOOK = 'http://localhost:3000/ak/api/v1/webhooks/txs/nboqur'

export const BackupId = Type.String({
  pattern: '^03_ibp_db_backup_[0-9]{1,20}$',
  description: 'Id of the backup',
  examples: [EXAMPLE_BACKUP]
})

export const BackupParams = Type.Object({ backup_id: BackupId })

export const NoQuery = Type.Object({}, { additionalProperties: false })

export const Milliseconds = (what: string) =>
  Type.Number({ description: `${what}, in milliseconds since the epoch` })
