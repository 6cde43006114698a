import type { PolicyConfig, PolicyDecision, PolicyRule } from '../src/core/policy.ts';
import { WEEKDAYS } from '../src/core/policy.ts';
import type { Principal } from '../src/core/principal.ts';
import { hasFloor, isGuarded, RISKS, type Risk } from '../src/core/risk.ts';
import type { Requirement } from '../src/core/state.ts';

export interface PolicyRequest {
  readonly principal: Principal;
  /** `<namespace>/<name>` */
  readonly entity: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly action: string;
  readonly risk: Risk;
  readonly now: Date;
}

export interface PolicyVerdict {
  readonly decision: PolicyDecision;
  readonly require: Requirement;
  /** Whether elicitation, which the caller's own client answers, does not count. */
  readonly outOfBand: boolean;
  /** Which rule decided, in words. */
  readonly rule: string;
  readonly reason: string | undefined;
}

/**
 * Decides about one call. Rules are tried in order and the first that matches decides; what no rule matches gets the
 * default of its risk. A floor no rule can lower: `merge` and `overwrite` are never allowed without a confirmation.
 */
export function decide(policy: PolicyConfig, request: PolicyRequest): PolicyVerdict {
  const outOfBand = policy.approver === 'out-of-band' || policy.approver_passphrase_hash !== undefined;
  const deny = (rule: string, reason: string): PolicyVerdict => ({
    decision: 'deny',
    require: policy.confirm,
    outOfBand,
    rule,
    reason,
  });
  if (!RISKS.includes(request.risk)) return deny('unknown risk', 'the risk of this call is not known');
  if (request.risk !== 'read' && !request.principal.roles.includes('operator')) {
    return deny('roles', 'this caller may only read');
  }
  if (request.risk === 'read' && request.principal.roles.length === 0) return deny('roles', 'this caller has no role');
  if (policy.read_only && request.risk !== 'read') return deny('read_only', 'the policy is read-only');

  const index = policy.rules.findIndex((rule) => matches(rule, request));
  const rule = policy.rules[index];
  if (rule === undefined) {
    const decision = isGuarded(request.risk) ? 'confirm' : 'allow';
    return { decision, require: policy.confirm, outOfBand, rule: `default for ${request.risk}`, reason: undefined };
  }
  const decision = rule.decision === 'allow' && hasFloor(request.risk) ? 'confirm' : rule.decision;
  return {
    decision,
    require: rule.require ?? policy.confirm,
    outOfBand: outOfBand || rule.approver === 'out-of-band',
    rule: rule.name ?? `rule ${index + 1}`,
    reason: rule.reason,
  };
}

function matches(rule: PolicyRule, request: PolicyRequest): boolean {
  return (
    anyGlob(rule.entity, request.entity) &&
    anyGlob(rule.action, request.action) &&
    anyGlob(rule.principal, request.principal.id) &&
    (rule.risk === undefined || rule.risk.includes(request.risk)) &&
    (rule.role === undefined || rule.role.some((role) => request.principal.roles.includes(role))) &&
    Object.entries(rule.labels ?? {}).every(([name, value]) => request.labels[name] === value) &&
    (rule.hours === undefined || within(rule.hours, request.now))
  );
}

function anyGlob(globs: readonly string[] | undefined, text: string): boolean {
  return globs === undefined || globs.some((glob) => matchesGlob(glob, text));
}

/** Matches `*` (any run of characters, `/` included) and `?`; everything else stands for itself. */
export function matchesGlob(glob: string, text: string): boolean {
  // Two pointers instead of a regular expression: a policy must not be able to hang the server.
  let g = 0;
  let t = 0;
  let star = -1;
  let mark = 0;
  while (t < text.length) {
    if (g < glob.length && glob[g] === '*') {
      star = g;
      mark = t;
      g += 1;
    } else if (g < glob.length && (glob[g] === '?' || glob[g] === text[t])) {
      g += 1;
      t += 1;
    } else if (star >= 0) {
      g = star + 1;
      mark += 1;
      t = mark;
    } else {
      return false;
    }
  }
  while (glob[g] === '*') g += 1;
  return g === glob.length;
}

function within(hours: NonNullable<PolicyRule['hours']>, now: Date): boolean {
  const minutes = now.getUTCHours() * 60 + now.getUTCMinutes();
  const from = toMinutes(hours.from);
  const to = toMinutes(hours.to);
  const onDay = (shift: number): boolean => {
    // getUTCDay counts from Sunday, the list from Monday.
    const weekday = WEEKDAYS[(now.getUTCDay() + 6 + shift + 7) % 7]!;
    return hours.days === undefined || hours.days.includes(weekday);
  };
  if (from < to) return onDay(0) && minutes >= from && minutes < to;
  return (onDay(0) && minutes >= from) || (onDay(-1) && minutes < to);
}

function toMinutes(clock: string): number {
  const [hours, minutes] = clock.split(':').map(Number) as [number, number];
  return hours * 60 + minutes;
}
