/** The seam of the forges: what each of them is asked, and how it answers in landfall's words. */
import type { Change, ForgeName, Sha } from '../model.ts'

export interface ForgeRequest {
  /** Header names in lower case. */
  readonly headers: Readonly<Record<string, string | undefined>>
  /** The bytes as they came. */
  readonly body: Uint8Array
}

/** What a verified delivery says, in landfall's words. */
export interface Announcement {
  /** The forge's own id of the delivery, where it sends one. */
  readonly guid: string | null
  /** landfall's word: `push`, or the forge's event in lower case with dashes. */
  readonly event: string
  /** The event exactly as the forge names it: `push`, `Push Hook`. */
  readonly forgeEvent: string
  /** `owner/name` as the forge spells it, validated (`isRepository`); null where the event has none. */
  readonly repo: string | null
  /** The forge's number for the repository, which a new name leaves as it is; null where it sends none. */
  readonly repoId: number | null
  readonly changes: readonly Change[]
  /** The payload's word for the default branch: a hint, used only until a fetch has told the truth. */
  readonly defaultBranch: string | null
  /** The JSON text to hand to scripts, where it is not the body itself (a form's `payload` field). */
  readonly payload: string | null
}

export type Accepted =
  | { readonly kind: 'unauthentic' }
  | { readonly kind: 'unsupported-type' }
  | {
      readonly kind: 'invalid'
      readonly guid: string | null
      readonly forgeEvent: string | null
      readonly detail: string
    }
  | { readonly kind: 'ping'; readonly announcement: Announcement }
  | { readonly kind: 'event'; readonly announcement: Announcement }

/** What `landfall send` and the tests ask a forge to make: the delivery that it would send for this. */
export interface OutgoingDelivery {
  readonly event: string
  readonly repo: string
  /** The forge's number for it. */
  readonly repoId?: number
  readonly ref: string
  readonly before: Sha | null
  readonly after: Sha | null
  readonly guid: string
  /** A payload to send instead of a composed one. */
  readonly payload?: string
  readonly cloneUrl?: string
  readonly defaultBranch?: string
}

/** The seam of the forges: one file each. */
export interface Forge {
  readonly name: ForgeName
  /** Where this forge's public site serves clones; `{repo}` stands for `owner/name`. */
  readonly clone: string
  /** The user name that goes with a token for HTTPS clones. */
  readonly tokenUser: string
  /**
   * Verifies, and only then reads. Never throws for what a request contains. `secrets` has at least one entry and none is
   * empty; any of them may have signed.
   */
  accept(request: ForgeRequest, secrets: readonly string[], now: number): Promise<Accepted>
  /** Headers (lower case, with content type) and body of a delivery, signed with `secret`. */
  compose(
    delivery: OutgoingDelivery,
    secret: string,
    now: number,
  ): { readonly headers: Record<string, string>; readonly body: string }
  /** What a person enters in the forge's webhook form, in the form's own words and order. */
  form(url: string, secret: string): readonly { readonly field: string; readonly value: string }[]
}

/** What every full name looks like; `isRepository` refuses more. */
