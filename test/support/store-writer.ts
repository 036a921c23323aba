/** Records deliveries into the data_dir of its argument, several at a time, and prints the id of each that was acknowledged. */
import { openSqlite } from '../../src/stores/sqlite.ts'
import { anOrder, aPush, commit } from './nouns.ts'

const store = await openSqlite({ dataDir: process.argv[2] ?? '', keepDeliveriesMs: 1000 })

async function write(writer: number): Promise<void> {
  for (let n = 0; ; n += 1) {
    const body = `${process.pid} ${writer} ${n}`
    const order = anOrder({ announced: commit(n * 100 + writer) })
    const routing = { kind: 'routes', learns: null, routes: [{ kind: 'run', order }] } as const
    const { receipt } = await store.record(aPush({ body, text: body.repeat(n % 50) }), routing)
    const [effect] = receipt.targets
    process.stdout.write(`${receipt.delivery} ${effect !== undefined && 'run' in effect ? effect.run : ''}\n`)
  }
}

await Promise.all([1, 2, 3, 4].map(write))
