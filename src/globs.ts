/** Patterns of repositories, branches, tags and paths: `*` stops at `/`, `**` does not. */
import picomatch from 'picomatch'

/**
 * True where a pattern fits `text` and none that begins with `!` does. Patterns that only exclude mean everything else.
 */
export function matchesAny(patterns: readonly string[], text: string): boolean {
  const includes = patterns.filter((pattern) => !pattern.startsWith('!'))
  const excludes = patterns.filter((pattern) => pattern.startsWith('!')).map((pattern) => pattern.slice(1))
  const included = includes.length === 0 || includes.some((pattern) => matcher(pattern)(text))
  return included && !excludes.some((pattern) => matcher(pattern)(text))
}

/** The same for branches and tags, among which a bare `*` means every one. */
export function matchesRefName(patterns: readonly string[], name: string): boolean {
  return matchesAny(
    patterns.map((pattern) => (pattern === '*' ? '**' : pattern)),
    name,
  )
}

/** Repository names are compared without case. */
export function matchesRepository(pattern: string, repo: string): boolean {
  return matcher(pattern.toLowerCase())(repo.toLowerCase())
}

/** Patterns are the configuration's, so these are few. Extended globs would make a small language of them. */
const matchers = new Map<string, (text: string) => boolean>()
function matcher(pattern: string): (text: string) => boolean {
  const known = matchers.get(pattern)
  if (known !== undefined) return known
  // `s`: a file name may hold a line break, and `**` means that one too.
  const made = picomatch(pattern, { noextglob: true, dot: true, nonegate: true, flags: 's' })
  matchers.set(pattern, made)
  return made
}
