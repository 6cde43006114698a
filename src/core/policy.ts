import type { Role } from './principal.ts';
import type { Risk } from './risk.ts';
import type { Requirement } from './state.ts';

export const WEEKDAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const;
export type Weekday = (typeof WEEKDAYS)[number];

/** What a rule says of the calls that it matches. */
export type PolicyDecision = 'allow' | 'confirm' | 'deny';

/** Which channels count as approval: `out-of-band` leaves out elicitation, which the caller's own client answers. */
export type ApproverChannel = 'any' | 'out-of-band';

/** One rule of the policy. It matches when every condition that it has matches; the first rule that matches decides. */
export interface PolicyRule {
  name?: string | undefined;
  /** Globs over `<namespace>/<name>`. */
  entity?: string[] | undefined;
  /** Every label must be there with this value. */
  labels?: Record<string, string> | undefined;
  /** Globs over canonical action names. */
  action?: string[] | undefined;
  risk?: Risk[] | undefined;
  role?: Role[] | undefined;
  /** Globs over the principal's id. */
  principal?: string[] | undefined;
  /** UTC; a window whose end is before its begin runs over midnight and belongs to the day on which it begins. */
  hours?: { days?: Weekday[] | undefined; from: string; to: string } | undefined;
  decision: PolicyDecision;
  require?: Requirement | undefined;
  approver?: ApproverChannel | undefined;
  /** Why, shown to whoever is asked or refused. */
  reason?: string | undefined;
}

/** The `guard:` section of the entities file. */
export interface PolicyConfig {
  confirm: Requirement;
  read_only: boolean;
  confirmation_ttl_seconds: number;
  approver: ApproverChannel;
  /** `scrypt$<N>$<r>$<p>$<salt base64>$<hash base64>`, Node's scrypt with a hash of 32 bytes. */
  approver_passphrase_hash?: string | undefined;
  rules: PolicyRule[];
}

/** The policy of a file without a `guard:` section. */
export const DEFAULT_POLICY: PolicyConfig = {
  confirm: 'human',
  read_only: false,
  confirmation_ttl_seconds: 600,
  approver: 'any',
  rules: [],
};
