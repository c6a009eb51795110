import { type Described, NAME, type Options } from './command.js'

export type CompletedCommand = Pick<Described, 'summary' | 'options' | 'completes'>

export const SHELLS: readonly string[] = ['bash', 'zsh']

const FUNCTION = `_${NAME.replaceAll('-', '_')}`

/** Returns a script that completes commands, options and their values in a shell. */
export function completionScript(
  shell: string,
  commands: Record<string, CompletedCommand>,
  common: Options
): string {
  return shell === 'zsh' ? zshScript(commands, common) : bashScript(commands, common)
}

function bashScript(commands: Record<string, CompletedCommand>, common: Options): string {
  const cases = Object.entries(commands).map(([name, command]) => {
    const words = `      words='${[...optionsOf(command, common), ...argumentsOf(command)].join(' ')}'`
    const files = command.completes?.files ? '\n      compopt -o default' : ''
    return `    ${name})\n${words}${files} ;;`
  })
  const values = valueCases(commands, common).map(([pattern, value]) => {
    if (value === 'file') return `    ${pattern}) compopt -o default; return ;;`
    if (value.length === 0) return `    ${pattern}) return ;;`
    return `    ${pattern}) COMPREPLY=($(compgen -W '${value.join(' ')}' -- "$word")); return ;;`
  })
  return `${FUNCTION}() {
  local word=\${COMP_WORDS[COMP_CWORD]} words=
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W '${[...Object.keys(commands), '--help', '--version'].join(' ')}' -- "$word"))
    return
  fi
  case \${COMP_WORDS[1]}:\${COMP_WORDS[COMP_CWORD-1]} in
${values.join('\n')}
  esac
  case \${COMP_WORDS[1]} in
${cases.join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -F ${FUNCTION} ${NAME}`
}

function zshScript(commands: Record<string, CompletedCommand>, common: Options): string {
  const described = Object.entries(commands).map(
    ([name, { summary }]) => `    '${name}:${summary.replaceAll("'", "'\\''").replaceAll(':', '\\:')}'`
  )
  const cases = Object.entries(commands).map(([name, command]) => {
    const options = `[[ $words[CURRENT] == -* ]] && compadd -- ${optionsOf(command, common).join(' ')}`
    const given = argumentsOf(command)
    const others = given.length > 0 ? `\n      compadd -- ${given.join(' ')}` : ''
    return `    ${name})\n      ${options}${others}${command.completes?.files ? '\n      _files' : ''} ;;`
  })
  const values = valueCases(commands, common).map(([pattern, value]) =>
    value === 'file'
      ? `    ${pattern}) _files; return ;;`
      : `    ${pattern}) ${value.length > 0 ? `compadd -- ${value.join(' ')}; ` : ''}return ;;`
  )
  return `#compdef ${NAME}
${FUNCTION}() {
  local -a commands
  commands=(
${described.join('\n')}
  )
  if ((CURRENT == 2)); then
    _describe command commands
    return
  fi
  case $words[2]:$words[CURRENT-1] in
${values.join('\n')}
  esac
  case $words[2] in
${cases.join('\n')}
  esac
}
# Loaded from a directory of $fpath, or by "source".
if [[ $funcstack[1] == ${FUNCTION} ]]; then
  ${FUNCTION} "$@"
else
  compdef ${FUNCTION} ${NAME}
fi`
}

const argumentsOf = ({ completes }: CompletedCommand): readonly string[] => completes?.arguments ?? []

const optionsOf = ({ options }: CompletedCommand, common: Options): string[] =>
  Object.keys({ ...options, ...common }).map((name) => `--${name}`)

type Value = readonly string[] | 'file'

/** Returns patterns of a command and an option that takes a value, and what the value may be. */
function valueCases(commands: Record<string, CompletedCommand>, common: Options): [string, Value][] {
  const cases: [string, Value][] = []
  for (const [command, { options, completes }] of Object.entries(commands)) {
    for (const [name, { type, short }] of Object.entries({ ...options, ...common })) {
      if (type !== 'string') continue
      const spellings = short ? [`--${name}`, `-${short}`] : [`--${name}`]
      const pattern = spellings.map((spelling) => `${command}:${spelling}`).join('|')
      cases.push([pattern, completes?.values?.[name] ?? []])
    }
  }
  return cases
}
