/** adnanh/webhook, Debian's package `webhook`: what landfall is measured beside. */
import type { ChildProcess } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { answers } from './daemon.ts'
import { freePort, onPath, start, until } from './processes.ts'
import { SECRET } from './requests.ts'

export const WEBHOOK = onPath('webhook')
export const NO_WEBHOOK =
  'adnanh/webhook is not on the PATH (Debian: apt-get install webhook): what is measured beside it was skipped'

/** Serves `/hooks/github`: checks the HMAC, runs `command`, and answers without waiting for it. */
export async function startWebhook(directory: string, command: string): Promise<{ url: string; child: ChildProcess }> {
  if (WEBHOOK === null) throw new Error(NO_WEBHOOK)
  const signature = { source: 'header', name: 'X-Hub-Signature-256' }
  const match = { type: 'payload-hmac-sha256', secret: SECRET, parameter: signature }
  const hook = { id: 'github', 'execute-command': command, 'command-working-directory': directory }
  const file = join(directory, 'hooks.json')
  const hooks = [{ ...hook, 'response-message': 'accepted', 'trigger-rule': { match } }]
  await writeFile(file, JSON.stringify(hooks))
  const port = await freePort()
  const child = start(WEBHOOK, ['-hooks', file, '-ip', '127.0.0.1', '-port', String(port)])
  const url = `http://127.0.0.1:${port}`
  await until('an answer of webhook', () => answers(url))
  return { url, child }
}
