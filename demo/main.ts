/** `npm run demo`: a push makes landfall on this machine, for real. Each line says what has just happened. */
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, readlink, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { styleText } from 'node:util'
import type { DeliveryView, RunView, TargetView } from '../src/admin/views.ts'
import { type Client, clientOf, type Listed } from '../src/commands/client.ts'
import { FORGE } from '../src/forges/index.ts'
import type { Sha } from '../src/model.ts'
import { makeRepository, REPO, type Repository, SECRET, type Site, startDaemon, writeSite } from './world.ts'

const BURST = 20

async function main(): Promise<number> {
  const root = await mkdtemp(join(tmpdir(), 'landfall-demo-'))
  const repository = await makeRepository(root)
  say(`Made a Git remote with 12 commits, as a forge would hold it: ${repository.path}`)
  const site = await writeSite(root, repository)
  const daemon = await startDaemon(site)
  const stop = async (): Promise<void> => {
    daemon.kill('SIGTERM')
    if (daemon.exitCode === null) await once(daemon, 'exit')
    await rm(root, { recursive: true, force: true })
  }
  try {
    say(`Started landfall: it takes webhooks at ${site.url}/hooks/github`)
    // Ctrl-C ends the demo at any time, and with it the daemon.
    const signalled = Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')])
    const ended = await Promise.race([signalled.then(() => 'signalled'), play(site, repository)])
    if (ended === 'played' && !process.argv.includes('--exit')) {
      invite(site)
      await signalled
    }
    return ended === 'played' ? 0 : 130
  } catch (error) {
    console.error(styleText('red', `✗ ${error instanceof Error ? error.message : String(error)}`))
    console.error((await readFile(site.logFile, 'utf8')).split('\n').slice(-12).join('\n'))
    return 1
  } finally {
    await stop()
  }
}

async function play(site: Site, repository: Repository): Promise<'played'> {
  const api = clientOf(site.dataDir)
  await firstSight(api, site)
  await announcedPush(api, site, repository)
  await missedPush(api, site, repository)
  await burst(api, site, repository)
  return 'played'
}

async function firstSight(api: Client, site: Site): Promise<void> {
  const run = await waitForRun(api, (one) => one.trigger === 'poll' && one.state === 'succeeded')
  say(`First sight: it asked the remote and deployed what is there (run ${run.id}, ${short(run.commit)})`)
  show(await deployed(site))
}

async function announcedPush(api: Client, site: Site, repository: Repository): Promise<void> {
  const before = await tip(api)
  const commit = await repository.push('The lighthouse is lit')
  say(`Pushed a commit: ${short(commit)}`)
  const answer = await deliver(site, commit, before)
  const receipt = (await answer.json()) as { delivery: number; verdict: string; targets: { run: number }[] }
  const id = receipt.targets[0]?.run
  must(answer.status === 202 && id !== undefined, `the delivery was not accepted: ${JSON.stringify(receipt)}`)
  say(`Posted GitHub's signed delivery for it; landfall answered 202: ${JSON.stringify(receipt)}`)
  say(`Run ${id}, as it happens:`)
  for await (const chunk of api.stream(`runs/${id}/log`, { follow: 1 }, 'text/plain')) show(chunk.toString())
  const run = await waitForRun(api, (one) => one.id === id && one.finishedAt !== null)
  must(run.state === 'succeeded' && run.commit === commit, `run ${id} ended ${run.state}`)
  say(`Deployed: ${site.current} -> ${basename(await readlink(site.current)).slice(0, 10)}, which says`)
  show(await deployed(site))
}

async function missedPush(api: Client, site: Site, repository: Repository): Promise<void> {
  const commit = await repository.push('Fog, and no webhook')
  say(`Pushed ${short(commit)} and sent no webhook`)
  const run = await waitForRun(api, (one) => one.commit === commit && one.state === 'succeeded')
  must(run.trigger === 'poll', `the push was found by a ${run.trigger}, not by a poll`)
  say(`Polling caught it: run ${run.id}, trigger ${run.trigger}`)
  show(await deployed(site))
  const target = await until('the missed webhook', async () => {
    const { items } = await api.get<Listed<TargetView>>('targets')
    return items.find(({ silentSince }) => silentSince !== null)
  })
  say(`And it reports the missed webhook: hook ${target.hook} has been silent for ${REPO} since ${target.silentSince}`)
}

async function burst(api: Client, site: Site, repository: Repository): Promise<void> {
  const { items: earlier } = await api.get<Listed<RunView>>('runs')
  let before = await tip(api)
  let last = before
  const answers: Promise<Response>[] = []
  for (let count = 1; count <= BURST; count += 1) {
    last = await repository.push(`Wave ${count}`)
    answers.push(deliver(site, last, before))
    before = last
  }
  const accepted = (await Promise.all(answers)).filter(({ status }) => status === 202).length
  must(accepted === BURST, `only ${accepted} of ${BURST} deliveries were accepted`)
  say(`Pushed ${BURST} commits in a burst, each with its delivery: ${accepted} accepted`)
  await until('the end of the burst', async () => {
    const [target] = (await api.get<Listed<TargetView>>('targets')).items
    return target?.deployed?.commit === last && target.queued === 0 && target.running === null
  })
  const { items } = await api.get<Listed<RunView>>('runs', { limit: 100 })
  const runs = items.filter(({ id }) => id > (earlier[0]?.id ?? 0))
  const executed = runs.filter(({ state }) => state === 'succeeded').length
  const superseded = runs.filter(({ state }) => state === 'superseded').length
  must(executed < BURST && superseded > 0, 'nothing was coalesced')
  say(
    `The last commit is deployed: ${executed} runs did the work, ${superseded} waiting ones were superseded by newer pushes`,
  )
  show(await deployed(site))
  const { items: deliveries } = await api.get<Listed<DeliveryView>>('deliveries', { limit: 100 })
  say(`All ${deliveries.length} deliveries are on record, each with a verdict and a run or a reason`)
}

function invite(site: Site): void {
  say('Still serving. Try it in another terminal:')
  show(`webhooks   ${site.url}/hooks/github (secret: "${SECRET}")`)
  show(`health     ${site.url}/healthz`)
  show(`the site   file://${site.current}/public/index.html`)
  show(`look       npm run landfall -- status -c ${site.configFile}`)
  show(`send       npm run landfall -- send github -c ${site.configFile}`)
  show('Ctrl-C stops the daemon and removes everything.')
}

/** A real push payload of GitHub's, with repository, ref and commits set to the real ones, signed as GitHub does. */
function deliver(site: Site, commit: Sha, before: Sha | null): Promise<Response> {
  const ref = 'refs/heads/main'
  const payload = {
    ...examplePush(),
    ref,
    before: before ?? '0'.repeat(40),
    after: commit,
    created: false,
    deleted: false,
  }
  const guid = randomUUID()
  const { headers, body } = FORGE.github.compose(
    { event: 'push', repo: REPO, ref, before, after: commit, guid, payload: JSON.stringify(payload) },
    SECRET,
    Date.now(),
  )
  return fetch(`${site.url}/hooks/github`, { method: 'POST', headers, body })
}

interface PushPayload {
  repository: Record<string, unknown>
  [field: string]: unknown
}

function examplePush(): PushPayload {
  const examples: { name: string; examples: PushPayload[] }[] = createRequire(import.meta.url)(
    '@octokit/webhooks-examples',
  )
  const push = examples.find(({ name }) => name === 'push')?.examples.find((one) => one['head_commit'] !== null)
  if (push === undefined) throw new Error('@octokit/webhooks-examples has no push')
  const [owner, name] = REPO.split('/')
  const repository = {
    ...push.repository,
    full_name: REPO,
    name,
    owner: { login: owner, name: owner },
    default_branch: 'main',
  }
  return { ...push, repository }
}

async function waitForRun(api: Client, wanted: (run: RunView) => boolean): Promise<RunView> {
  return until('the run', async () => (await api.get<Listed<RunView>>('runs')).items.find(wanted))
}

async function tip(api: Client): Promise<Sha | null> {
  const [target] = (await api.get<Listed<TargetView>>('targets')).items
  return target?.deployed?.commit ?? null
}

async function deployed(site: Site): Promise<string> {
  return readFile(join(site.current, 'public', 'index.html'), 'utf8')
}

async function until<T>(what: string, claim: () => Promise<T | null | undefined | false>): Promise<T> {
  const deadline = performance.now() + 20_000
  for (;;) {
    const value = await claim()
    if (value !== null && value !== undefined && value !== false) return value
    if (performance.now() > deadline) throw new Error(`waited 20 s for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

function must(claim: boolean, otherwise: string): void {
  if (!claim) throw new Error(otherwise)
}

function say(text: string): void {
  console.log(`${styleText('green', '●')} ${text}`)
}

function show(text: string): void {
  console.log(text.trimEnd().replace(/^/gm, '    '))
}

function short(commit: string | null): string {
  return commit?.slice(0, 10) ?? 'nothing'
}

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    console.error(error)
    process.exit(1)
  },
)
