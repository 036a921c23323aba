/** The forges that landfall understands. A new one is a file beside this, a name in the model's list, and a line here. */

import type { ForgeName } from '../model.ts'
import type { Forge } from './forge.ts'
import { github } from './github.ts'
import { gitlab } from './gitlab.ts'

export const FORGE: Readonly<Record<ForgeName, Forge>> = { github, gitlab }
