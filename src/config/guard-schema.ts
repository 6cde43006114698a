import { z } from 'zod';
import { isObject } from '../core/json.ts';
import { type PolicyConfig, type PolicyRule, WEEKDAYS, type Weekday } from '../core/policy.ts';
import { RISKS } from '../core/risk.ts';
import { duration } from './values.ts';

const oneOrMany = <Item extends z.ZodType>(item: Item) => z.union([item, z.array(item).min(1)]);
const asList = <Item>(value: Item | Item[] | undefined): Item[] | undefined =>
  value === undefined ? undefined : Array.isArray(value) ? value : [value];

const glob = z.string().min(1);
const entityGlob = z.string().refine((text) => text.includes('/') || text.includes('*'), {
  error: 'an entity is matched as <namespace>/<name>',
  params: { suggestion: 'Write a glob such as my-app/prod-*, or * for all.' },
});
const actionGlob = z
  .string()
  .regex(/^[a-z0-9*?-]+$/, 'action names are kebab-case, such as delete-snapshot or restore*');
const time = z.string().regex(/^(?:[01]\d|2[0-3]):[0-5]\d$/, 'a time of day is HH:MM, UTC, in quotes');
const requirement = z.enum(['human', 'token', 'two-people']);
const approver = z.enum(['any', 'out-of-band']);

const conditions = {
  entity: oneOrMany(entityGlob).optional().describe('Globs over <namespace>/<name>.'),
  labels: z
    .record(z.string(), z.union([z.string(), z.number(), z.boolean()]))
    .optional()
    .describe('Labels that the entity must have, with their values.'),
  action: oneOrMany(actionGlob).optional().describe('Globs over action names in kebab-case.'),
  risk: oneOrMany(z.enum(RISKS)).optional(),
  role: oneOrMany(z.enum(['viewer', 'operator', 'approver'])).optional(),
  principal: oneOrMany(glob).optional().describe('Globs over the caller, stdio:ana or http:ci-bot.'),
  hours: z
    .strictObject({ days: oneOrMany(z.string()).optional(), from: time, to: time })
    .optional()
    .describe('UTC. A window that ends before it begins runs over midnight.'),
};
type Conditions = z.output<z.ZodObject<typeof conditions>>;

const RuleInput = z.strictObject({
  name: z.string().min(1).optional(),
  ...conditions,
  match: z
    .strictObject(conditions)
    .optional()
    .describe('The conditions, where you prefer them apart from the decision.'),
  decision: z.enum(['allow', 'confirm', 'deny']),
  require: requirement.optional(),
  approver: approver.optional(),
  reason: z.string().min(1).optional().describe('Shown to whoever is asked or refused.'),
});

// scrypt's memory is 128·N·r bytes; the check at approval allows 256 MiB.
const PASSPHRASE_HASH =
  /^scrypt\$(\d{4,7})\$(\d{1,2})\$(\d{1,2})\$([A-Za-z0-9+/]{16,}={0,2})\$([A-Za-z0-9+/]{40,}={0,2})$/;
const HASH_COMMAND =
  'read -rs P; printf %s "$P" | node -e \'const c=require("crypto"),s=c.randomBytes(16),p=require("fs").readFileSync(0);console.log(["scrypt",32768,8,1,s.toString("base64"),c.scryptSync(p,s,32,{N:32768,maxmem:2**28}).toString("base64")].join("$"))\'';

/** The `guard:` section as it is written, hyphens and underscores made equal. */
export const GuardInput = z.strictObject({
  confirm: requirement
    .default('human')
    .describe('Who confirms risky calls: a person, a token alone, or a second person.'),
  read_only: z.boolean().default(false).describe('Denies everything but reading.'),
  confirmation_ttl: duration({ least: 10, most: 86_400 })
    .optional()
    .describe('How long a confirmation can be used: 10m.'),
  confirmation_ttl_seconds: z.number().int().min(10).max(86_400).optional(),
  approver: approver.default('any').describe('out-of-band: answers of the caller’s own client do not count.'),
  approver_passphrase_hash: z
    .string()
    .refine(isPassphraseHash, {
      error: 'write the hash, scrypt$N$r$p$salt$hash, never the passphrase',
      params: { suggestion: `Make one with: ${HASH_COMMAND}` },
    })
    .optional(),
  rules: z.array(RuleInput).default([]).describe('Tried in order; the first that matches decides.'),
});

function isPassphraseHash(text: string): boolean {
  const match = PASSPHRASE_HASH.exec(text);
  if (match === null) return false;
  const [n, r, p] = match.slice(1, 4).map(Number) as [number, number, number];
  return (
    n >= 16_384 && Number.isInteger(Math.log2(n)) && r >= 1 && p >= 1 && p <= 16 && 128 * n * r <= 128 * 1024 * 1024
  );
}

/** The `guard:` section of a file, parsed into the policy that the guard decides by. */
export const GuardSection = GuardInput.superRefine((guard, context) => {
  if (guard.confirmation_ttl !== undefined && guard.confirmation_ttl_seconds !== undefined) {
    context.addIssue({
      code: 'custom',
      path: ['confirmation_ttl_seconds'],
      message: 'the same as confirmation_ttl; keep one',
    });
  }
  guard.rules.forEach((rule, index) => {
    for (const issue of ruleIssues(rule)) {
      const { path, ...rest } = issue;
      context.addIssue({ code: 'custom', path: ['rules', index, ...path], ...rest });
    }
  });
}).transform((guard): PolicyConfig => {
  const { confirmation_ttl, confirmation_ttl_seconds, rules, ...rest } = guard;
  return {
    ...rest,
    confirmation_ttl_seconds: confirmation_ttl ?? confirmation_ttl_seconds ?? 600,
    rules: rules.map(toRule),
  };
});

interface RuleIssue {
  path: PropertyKey[];
  message: string;
  params?: { suggestion: string };
}

function ruleIssues(rule: z.output<typeof RuleInput>): RuleIssue[] {
  const issues: RuleIssue[] = [];
  for (const key of Object.keys(rule.match ?? {})) {
    if (rule[key as keyof Conditions] !== undefined) {
      issues.push({ path: ['match', key], message: 'stands in the rule and under match; keep one' });
    }
  }
  for (const key of ['require', 'approver'] as const) {
    if (rule[key] !== undefined && rule.decision !== 'confirm') {
      issues.push({
        path: [key],
        message: `has no meaning with decision: ${rule.decision}`,
        params: { suggestion: 'Write decision: confirm, or remove it.' },
      });
    }
  }
  const risks = asList(rule.risk ?? rule.match?.risk) ?? [];
  if (rule.decision === 'allow' && risks.some((risk) => risk === 'merge' || risk === 'overwrite')) {
    issues.push({
      path: ['decision'],
      message: 'no rule can allow merge or overwrite without a confirmation',
      params: {
        suggestion: 'Write decision: confirm with require: token for callers that have their own approval step.',
      },
    });
  }
  const hours = rule.hours ?? rule.match?.hours;
  if (hours !== undefined) {
    const path = rule.hours === undefined ? ['match', 'hours'] : ['hours'];
    if (hours.from === hours.to)
      issues.push({ path, message: 'begins and ends at the same time; leave hours out for the whole day' });
    const wrong = (asList(hours.days) ?? []).some((day) => toDays(day) === undefined);
    if (wrong)
      issues.push({ path: [...path, 'days'], message: `days are ${WEEKDAYS.join(', ')} or a range such as mon-fri` });
  }
  return issues;
}

function toRule(rule: z.output<typeof RuleInput>): PolicyRule {
  const { match, entity, labels, action, risk, role, principal, hours, ...rest } = rule;
  const from: Conditions = { ...match, ...defined({ entity, labels, action, risk, role, principal, hours }) };
  return {
    ...rest,
    ...defined({
      entity: asList(from.entity),
      labels:
        from.labels && Object.fromEntries(Object.entries(from.labels).map(([key, value]) => [key, String(value)])),
      action: asList(from.action),
      risk: asList(from.risk),
      role: asList(from.role),
      principal: asList(from.principal),
      hours: from.hours && {
        ...defined({ days: asList(from.hours.days)?.flatMap((day) => toDays(day) ?? []) }),
        from: from.hours.from,
        to: from.hours.to,
      },
    }),
  };
}

function toDays(text: string): Weekday[] | undefined {
  const [from, to, ...more] = text
    .toLowerCase()
    .split('-')
    .map((day) => WEEKDAYS.indexOf(day.trim() as Weekday));
  if (from === undefined || from === -1 || to === -1 || more.length > 0) return undefined;
  const days: Weekday[] = [];
  for (let day = from; ; day = (day + 1) % WEEKDAYS.length) {
    days.push(WEEKDAYS[day] as Weekday);
    if (day === (to ?? from)) return days;
  }
}

function defined<Fields extends object>(fields: Fields): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Fields;
}

/**
 * Makes a section's keys spelled with hyphens equal to those with underscores, and in a policy the words `two_people`
 * and `out_of_band` to those with hyphens. Gives the paths of keys that stand twice because of that.
 */
export function normaliseSection(value: unknown, twice: PropertyKey[][] = [], path: PropertyKey[] = []): unknown {
  if (Array.isArray(value)) return value.map((member, index) => normaliseSection(member, twice, [...path, index]));
  if (!isObject(value)) return value;
  const out: Record<string, unknown> = {};
  for (const [key, member] of Object.entries(value)) {
    const name = key.replaceAll('-', '_');
    if (Object.hasOwn(out, name)) twice.push([...path, key]);
    // Labels are the user's own words.
    const inner = name === 'labels' ? member : normaliseSection(member, twice, [...path, name]);
    const isWord = ['confirm', 'require', 'approver'].includes(name) && typeof inner === 'string';
    out[name] = isWord ? inner.replaceAll('_', '-') : inner;
  }
  return out;
}
