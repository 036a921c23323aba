/** Tables for people, on a terminal of 80 columns. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { printTable, type Screen } from '../src/commands/print.ts'

const HEADINGS = ['TARGET', 'STATE', 'DEPLOYED', 'NEXT', 'LAST RUN']

function printed(rows: readonly (readonly string[])[]): readonly string[] {
  const lines: string[] = []
  const screen: Screen = {
    isTerminal: true,
    columns: 80,
    now: 0,
    line: (text = '') => void lines.push(text),
    paint: (_, text) => text,
  }
  printTable(screen, HEADINGS, rows)
  return lines
}

test('a long name gives way in its middle, and the last column is there to be read', () => {
  const name = 'preview@dependabot/npm_and_yarn/packages/site/typescript-eslint-parser-8.46.1'
  const lines = printed([
    [name, 'ok', '93d98d8fb5 3 min ago', '-', '12 succeeded'],
    ['site', 'ok', '-', '-', '-'],
  ])
  assert.deepEqual(
    lines.filter((line) => line.length > 80),
    [],
  )
  const row = lines.find((line) => line.startsWith('preview@')) ?? ''
  assert.match(row, /^preview@\S*…\S*8\.46\.1 /)
  assert.match(row, /12 succeeded$/)
})

test('what fits is not cut', () => {
  const row = ['site@feature/x', 'ok', '93d98d8fb5 3 min ago', 'wants be2abad6cd', '12 failed']
  assert.ok(printed([row]).some((line) => row.every((cell) => line.includes(cell))))
})
