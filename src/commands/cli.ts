/** The command line: which verbs there are, what they take, and which exit code an end has. */
import { readFileSync } from 'node:fs'
import { Argument, Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { LATER_FORGES } from '../config/schema.ts'
import { LATER } from '../config/words.ts'
import { LandfallError } from '../errors.ts'
import { FORGES, type ForgeName, RUN_ENDS } from '../model.ts'
import {
  CHECK_HELP,
  DELIVERIES_HELP,
  INIT_HELP,
  LOGS_HELP,
  ONCE_HELP,
  PROGRAM_HELP,
  RUNS_HELP,
  SEND_HELP,
  SERVE_HELP,
  SHOW_HELP,
  STATUS_HELP,
} from './help.ts'

const EXIT = { done: 0, failed: 1, usage: 2, unreachable: 3 } as const

/** Verbs that the contract names and a later issue brings. */
const LATER_VERBS = (
  'why explain doctor deploy rollback freeze unfreeze cancel retry approve redeliver ' +
  'import prune completion hook notify backup restore'
).split(' ')

/** Parses the command line and runs the verb. Resolves to the exit code. */
export async function runCli(argv: readonly string[]): Promise<number> {
  let code: number = EXIT.done
  const program = declareProgram()
  const ends = (end: number): void => {
    code = end
  }
  declareRunning(program, ends)
  declareReading(program, ends)
  for (const verb of program.commands) verb.showHelpAfterError(`See: landfall ${verb.name()} --help`)
  for (const name of LATER_VERBS) declareLater(program, name)
  try {
    if (argv.length <= 2) program.outputHelp()
    else await program.parseAsync(argv)
  } catch (error) {
    code = exitCodeFor(error)
  }
  return code
}

function exitCodeFor(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage
  if (!(error instanceof LandfallError)) {
    console.error(error)
    console.error('This is a bug in landfall.')
    return EXIT.failed
  }
  console.error(error.message)
  if (error.code === 'config' || error.code === 'usage') return EXIT.usage
  return error.code === 'unreachable' ? EXIT.unreachable : EXIT.failed
}

// --- The verbs --------------------------------------------------------------------------------------------------------

// Each verb is imported when it is asked for: `landfall logs` need not wait for what only the daemon is made of.

type Ends = (code: number) => void

const LOOK = 'Look:'

function declareProgram(): Command {
  const manifest: { readonly version: string } = JSON.parse(
    readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
  )
  const program = new Command('landfall')
    .description('A push to a Git forge makes landfall on this machine.')
    .version(manifest.version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help, or that of a verb')
    .addHelpCommand(new Command('help').argument('[verb]').description('print the help of a verb').helpGroup(LOOK))
    .option(
      '-c, --config <file>',
      'the configuration; else $LANDFALL_CONFIG, ./landfall.toml or /etc/landfall/landfall.toml',
    )
    .exitOverride()
    .showHelpAfterError('See: landfall --help')
    .configureHelp({
      helpWidth: 80,
      subcommandTerm: (verb) => [verb.name(), ...verb.registeredArguments.map(termOf)].join(' '),
      argumentTerm: (argument) => argument.name().toUpperCase(),
      commandUsage: (verb) => (verb.parent === null ? 'landfall VERB [options]' : usageOf(verb)),
    })
  return program.addHelpText('after', PROGRAM_HELP)
}

function usageOf(verb: Command): string {
  const args = verb.registeredArguments.map((argument) => ` ${termOf(argument)}`).join('')
  return `landfall ${verb.name()} [options]${args.replace('[COMMAND…]', '[-- COMMAND…]')}`
}

function termOf(argument: Argument): string {
  const name = `${argument.name().toUpperCase()}${argument.variadic ? '…' : ''}`
  return argument.required ? name : `[${name}]`
}

/** `-c` is of the program, and may stand before or after the verb. */
function configFlag(program: Command): string | undefined {
  return program.opts<{ config?: string }>().config
}

function declareRunning(program: Command, ends: Ends): void {
  program.commandsGroup('Set up and run:')
  program
    .command('init')
    .description('write a first configuration')
    .addOption(new Option('--forge <forge>', 'where the repository is').choices([...FORGES]).argParser(forgeOf))
    .option('--repo <owner/name>', 'the repository to follow')
    .option('--public-url <url>', 'how the forge reaches this machine')
    .addHelpText('after', INIT_HELP)
    .action(async (options: { forge?: string; repo?: string; publicUrl?: string }) => {
      const { init } = await import('./init.ts')
      const { forge, repo, publicUrl } = options
      ends(await init({ configFlag: configFlag(program), forge, repo, publicUrl }))
    })
  program
    .command('check')
    .description('what the configuration amounts to, or its mistakes')
    .addHelpText('after', CHECK_HELP)
    .action(async () => {
      const { check } = await import('./check.ts')
      ends(await check({ configFlag: configFlag(program) }))
    })
  program
    .command('serve')
    .description('the daemon: receive pushes, poll, run')
    .addHelpText('after', SERVE_HELP)
    .action(async () => {
      const { serve } = await import('./serve.ts')
      ends(await serve({ configFlag: configFlag(program) }))
    })
  program
    .command('once')
    .description('poll every target, run what is due, and leave')
    .argument('[command...]', 'what to run in the checkout; with --url, after --')
    .option('--url <url>', 'follow this repository, without any configuration')
    .option('--branch <branch>', "with --url; default: the remote's default branch")
    .option('--timeout <duration>', 'with --url: of the command, such as "10m"; default: 1h')
    .option('--data-dir <dir>', 'with --url; default: ./.landfall-once')
    .option('-v, --verbose', "show the runs' logs, and what landfall does")
    .addHelpText('after', ONCE_HELP)
    .action(async (command: string[], options: OnceFlags) => {
      const { once } = await import('./once.ts')
      const { url, branch, timeout, dataDir, verbose = false } = options
      ends(await once({ configFlag: configFlag(program), command, url, branch, timeout, dataDir, verbose }))
    })
  program
    .command('send')
    .description('post a signed delivery to landfall, as the forge would')
    .argument('<hook>', 'the hook to send it to')
    .argument('[file]', 'a payload to send as it is')
    .option('--event <event>', 'what happened', 'push')
    .option('--repo <owner/name>', "default: the repository of the hook's first target")
    .option('--ref <ref>', "a branch or a full ref; default: the target's branch")
    .option('--commit <id>', "the commit to announce, all zeros for a deletion; default: the remote's tip")
    .addHelpText('after', SEND_HELP)
    .action(async (hook: string, file: string | undefined, options: SendFlags) => {
      const { send } = await import('./send.ts')
      const { event, repo, ref, commit } = options
      ends(await send({ configFlag: configFlag(program), hook, file, event, repo, ref, commit }))
    })
}

interface OnceFlags {
  readonly url?: string
  readonly branch?: string
  readonly timeout?: string
  readonly dataDir?: string
  readonly verbose?: boolean
}
interface SendFlags {
  readonly event: string
  readonly repo?: string
  readonly ref?: string
  readonly commit?: string
}

function declareReading(program: Command, ends: Ends): void {
  program.commandsGroup(LOOK)
  program
    .command('status')
    .description('what every target is at, or one in full')
    .argument('[target]', 'the name of one')
    .addOption(asJson())
    .addHelpText('after', STATUS_HELP)
    .action(async (target: string | undefined, { json = false }: { json?: boolean }) => {
      const { status } = await import('./status.ts')
      ends(await status({ configFlag: configFlag(program), target, json }))
    })
  program
    .command('runs')
    .description('the runs, newest first')
    .option('--target <name>', 'of one target')
    .addOption(new Option('--state <state>', 'in one state').choices(['queued', 'running', ...RUN_ENDS]))
    .addOption(limit())
    .option('--before <run>', 'older than this one', idOf)
    .addOption(asJson())
    .addHelpText('after', RUNS_HELP)
    .action(async ({ target, state, limit, before, json = false }: RunsFlags) => {
      const { runs } = await import('./runs.ts')
      ends(await runs({ configFlag: configFlag(program), target, state, limit, before, json }))
    })
  program
    .command('deliveries')
    .description('what forges have sent, and what came of it')
    .option('--hook <name>', 'to one hook')
    .option('--repo <owner/name>', 'about one repository')
    .addOption(new Option('--verdict <verdict>', 'with one verdict').choices(VERDICTS))
    .addOption(limit())
    .option('--before <delivery>', 'older than this one', idOf)
    .addOption(asJson())
    .addHelpText('after', DELIVERIES_HELP)
    .action(async ({ hook, repo, verdict, limit, before, json = false }: DeliveriesFlags) => {
      const { deliveries } = await import('./deliveries.ts')
      ends(await deliveries({ configFlag: configFlag(program), hook, repo, verdict, limit, before, json }))
    })
  program
    .command('show')
    .description('everything about one run')
    .addArgument(new Argument('<run>', 'its number').argParser(idOf))
    .addOption(asJson())
    .addHelpText('after', SHOW_HELP)
    .action(async (run: number, { json = false }: { json?: boolean }) => {
      const { show } = await import('./show.ts')
      ends(await show({ configFlag: configFlag(program), run, json }))
    })
  program
    .command('logs')
    .description('what a run has printed')
    .addArgument(new Argument('<run>', 'its number').argParser(idOf))
    .option('-f, --follow', 'go on until the run has ended')
    .addOption(asJson('print the events of the API, one a line'))
    .addHelpText('after', LOGS_HELP)
    .action(async (run: number, { follow = false, json = false }: { follow?: boolean; json?: boolean }) => {
      const { logs } = await import('./logs.ts')
      ends(await logs({ configFlag: configFlag(program), run, follow, json }))
    })
}

interface PageFlags {
  readonly limit: number
  readonly before?: number
  readonly json?: boolean
}
type RunsFlags = PageFlags & { readonly target?: string; readonly state?: string }
type DeliveriesFlags = PageFlags & { readonly hook?: string; readonly repo?: string; readonly verdict?: string }

const VERDICTS = ['accepted', 'ping', 'ignored', 'duplicate', 'invalid']

function asJson(what = 'print what the API answers'): Option {
  return new Option('--json', what)
}

function limit(): Option {
  return new Option('--limit <n>', 'at most so many').default(20).argParser((text) => {
    const count = idOf(text)
    if (count > 500) throw new InvalidArgumentError('It is at most 500.')
    return count
  })
}

function forgeOf(text: string): ForgeName {
  const forge = FORGES.find((name) => name === text)
  if (forge !== undefined) return forge
  throw new InvalidArgumentError(
    LATER_FORGES.includes(text) ? `It is ${LATER}.` : `Allowed choices are ${FORGES.join(', ')}.`,
  )
}

function idOf(text: string): number {
  if (/^[1-9]\d{0,14}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('It is a whole number from 1.')
}

function declareLater(program: Command, name: string): void {
  program
    .command(name, { hidden: true })
    .argument('[rest...]')
    .allowUnknownOption()
    .helpOption(false)
    .action(() => {
      throw new LandfallError('usage', `landfall ${name}: ${LATER}`)
    })
}
