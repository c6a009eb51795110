import { type LocalCommand, NAME, type Options } from '../command.js'
import { type CompletedCommand, completionScript, SHELLS } from '../completion-script.js'
import { usageError } from '../errors.js'

/** @param commands returns all commands, this one included */
export const completionOf = (
  commands: () => Record<string, CompletedCommand>,
  common: Options
): LocalCommand => ({
  summary: 'print what completes commands and options in a shell',
  usage: 'bash|zsh',
  help: `bash: add to ~/.bashrc
  source <(${NAME} completion bash)
zsh: add to ~/.zshrc, after compinit
  source <(${NAME} completion zsh)

It completes the command ${NAME}, as "npm install --global" installs it,
and calls no server.`,
  options: {},
  arguments: [1, 1],
  completes: { arguments: SHELLS },
  check([shell]) {
    if (!SHELLS.includes(shell))
      throw usageError(`completion is for ${SHELLS.join(' and ')}, not for "${shell}"`)
  },
  print: ([shell]) => completionScript(shell, commands(), common)
})
