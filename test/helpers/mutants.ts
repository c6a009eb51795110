/** Makes mutants of TypeScript: small changes of its code, each of which a test should detect. */
import ts from 'typescript'

/** One change of a file's text. */
export interface Mutant {
  file: string
  /** Positions at which the replaced text begins and ends. */
  start: number
  end: number
  replacement: string
  line: number
  what: string
}

const OPERATORS: Record<string, string> = {
  '<': '<=',
  '<=': '<',
  '>': '>=',
  '>=': '>',
  '===': '!==',
  '!==': '===',
  '&&': '||',
  '||': '&&',
  '+': '-',
  '-': '+',
  '*': '/',
  '/': '*',
  '+=': '-=',
  '-=': '+='
}
const METHODS: Record<string, string> = { min: 'max', max: 'min', some: 'every', every: 'some' }
/** Larger numbers are sizes and times. A test need not detect that one of them changes by 1. */
const LARGEST_STEP = 16

type Change = Pick<Mutant, 'replacement'> & { node: ts.Node }

/** Returns all mutants of a file, in the order of their positions. */
export function mutantsOf(file: string, text: string): Mutant[] {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.ES2022, true)
  const mutants: Mutant[] = []
  const visit = (node: ts.Node): void => {
    if (isOfTypes(node) || isSize(node)) return
    for (const { node: changed, replacement } of changesOf(node)) {
      mutants.push(mutantAt(file, text, changed.getStart(source), changed.getEnd(), replacement))
    }
    ts.forEachChild(node, visit)
  }
  visit(source)
  return mutants
}

/** Describes the change of `text` from `start` to `end`. */
export function mutantAt(
  file: string,
  text: string,
  start: number,
  end: number,
  replacement: string
): Mutant {
  const line = text.slice(0, start).split('\n').length
  const what = `${brief(text.slice(start, end))} -> ${brief(replacement) || '(removed)'}`
  return { file, start, end, replacement, line, what }
}

/** Applies a mutant to a text. */
export const mutated = (text: string, { start, end, replacement }: Mutant): string =>
  text.slice(0, start) + replacement + text.slice(end)

/**
 * Puts marks into a file, each at the beginning of the block around a mutant. Code that comes to the block notes the
 * mutant's number, once, in the file that the environment variable `REACHED` names.
 */
export function marked(text: string, mutants: ReadonlyMap<number, Mutant>): string {
  const source = ts.createSourceFile('marked.ts', text, ts.ScriptTarget.ES2022, true)
  const marks = [...mutants].map(([number, { start }]) => ({ at: blockAround(source, start), number }))
  marks.sort((a, b) => b.at - a.at)
  return marks.reduce((code, { at, number }) => code.slice(0, at) + mark(number) + code.slice(at), text)
}

/** Returns where the statements of the innermost block around a position begin. */
function blockAround(source: ts.SourceFile, position: number): number {
  let at = 0
  const visit = (node: ts.Node): void => {
    if (position < node.getStart(source) || position >= node.getEnd()) return
    if (ts.isBlock(node)) at = node.getStart(source) + 1
    ts.forEachChild(node, visit)
  }
  visit(source)
  return at
}

const mark = (number: number): string =>
  `;(globalThis.reached ??= new Set()).has(${number}) || (globalThis.reached.add(${number}), ` +
  `require('node:fs').appendFileSync(process.env.REACHED, '${number}\\n'));`

function brief(text: string): string {
  const line = text.replace(/\s+/g, ' ')
  return line.length > 70 ? `${line.slice(0, 67)}...` : line
}

const isOfTypes = (node: ts.Node): boolean =>
  ts.isTypeNode(node) ||
  ts.isInterfaceDeclaration(node) ||
  ts.isTypeAliasDeclaration(node) ||
  ts.isImportDeclaration(node)

/**
 * Tells whether a node is a size, a count or a time. No test can tell whether another one is wrong; those that promise
 * something are in `FIXED`.
 */
function isSize(node: ts.Node): boolean {
  if (!ts.isVariableDeclaration(node) || !ts.isVariableStatement(node.parent.parent)) return false
  const { name, initializer, parent } = node
  const isConstant = ts.isIdentifier(name) && /^[A-Z][A-Z\d_]*$/.test(name.text)
  return (
    isConstant &&
    ts.isSourceFile(parent.parent.parent) &&
    initializer !== undefined &&
    isArithmetic(initializer)
  )
}

const isArithmetic = (node: ts.Expression): boolean =>
  ts.isNumericLiteral(node) ||
  ts.isIdentifier(node) ||
  (ts.isBinaryExpression(node) && isArithmetic(node.left) && isArithmetic(node.right))

function changesOf(node: ts.Node): Change[] {
  if (ts.isBinaryExpression(node)) return operatorChanges(node)
  if (ts.isIfStatement(node) || ts.isWhileStatement(node)) return conditionChanges(node.expression)
  if (ts.isConditionalExpression(node)) return conditionChanges(node.condition)
  if (ts.isPrefixUnaryExpression(node) && node.operator === ts.SyntaxKind.ExclamationToken)
    return [{ node, replacement: node.operand.getText() }]
  if (ts.isExpressionStatement(node)) return isEffect(node) ? [{ node, replacement: ';' }] : []
  if (ts.isAwaitExpression(node)) return [{ node, replacement: node.expression.getText() }]
  if (ts.isNumericLiteral(node)) return numberChanges(node)
  if (node.kind === ts.SyntaxKind.TrueKeyword) return [{ node, replacement: 'false' }]
  if (node.kind === ts.SyntaxKind.FalseKeyword) return [{ node, replacement: 'true' }]
  if (ts.isPropertyAccessExpression(node) && ts.isCallExpression(node.parent)) {
    const other = Object.hasOwn(METHODS, node.name.text) ? METHODS[node.name.text] : undefined
    return other === undefined ? [] : [{ node: node.name, replacement: other }]
  }
  return []
}

function operatorChanges({ operatorToken, left, right }: ts.BinaryExpression): Change[] {
  const other = OPERATORS[operatorToken.getText()]
  const text = [left, right].some((side) => ts.isStringLiteralLike(side) || ts.isTemplateExpression(side))
  const joins = operatorToken.kind === ts.SyntaxKind.PlusToken && text
  const factor = ts.isNumericLiteral(right) && /^[*/]$/.test(operatorToken.getText())
  return other === undefined || joins || factor ? [] : [{ node: operatorToken, replacement: other }]
}

/** Returns the negated condition. A single comparison or a negation has a mutant of the same meaning already. */
function conditionChanges(condition: ts.Expression): Change[] {
  if (ts.isPrefixUnaryExpression(condition)) return []
  if (ts.isBinaryExpression(condition) && /^[!=]==$/.test(condition.operatorToken.getText())) return []
  return [{ node: condition, replacement: `!(${condition.getText()})` }]
}

/** Tells whether to make a mutant without a statement. In a constructor every test would detect it, so there is none. */
function isEffect(statement: ts.ExpressionStatement): boolean {
  if (ts.findAncestor(statement, ts.isConstructorDeclaration)) return false
  let { expression } = statement
  if (ts.isAwaitExpression(expression) || ts.isVoidExpression(expression)) expression = expression.expression
  if (ts.isCallExpression(expression)) return true
  if (ts.isPostfixUnaryExpression(expression) || ts.isPrefixUnaryExpression(expression)) return true
  return ts.isBinaryExpression(expression) && /=$/.test(expression.operatorToken.getText())
}

function numberChanges(node: ts.NumericLiteral): Change[] {
  const value = Number(node.text)
  const factor = ts.isBinaryExpression(node.parent) && /^[*/]/.test(node.parent.operatorToken.getText())
  if (value > LARGEST_STEP || !Number.isInteger(value) || factor || ts.isPropertyAssignment(node.parent))
    return []
  const steps = value === 0 ? [1] : [value + 1, value - 1]
  return steps.map((step) => ({ node, replacement: String(step) }))
}
