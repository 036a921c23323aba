/** Takes the data_dir of its argument, forces the garbage to be collected, and holds it until it is killed. */
import { ownDataDir } from '../../src/data-dir.ts'

const dataDir = await ownDataDir(process.argv[2] ?? '')
for (let turn = 0; turn < 10; turn += 1) {
  globalThis.gc?.()
  await new Promise((resolve) => setImmediate(resolve))
}
process.stdout.write('owned\n')
setInterval(() => dataDir.path, 1 << 30)
