import type { Command } from '../command.js'

export const list: Command = {
  summary: 'ids of all backups, oldest first',
  usage: '',
  help: '',
  options: {},
  arguments: [0, 0],
  async run({ client }) {
    const { ids } = await client.json<{ ids: string[] }>({ path: ['backups'] }, { idempotent: true })
    return { result: { ids }, text: ids.join('\n') }
  }
}
