import { z } from 'zod';
import { isObject, type JsonObject } from '../core/json.ts';
import type { EntityTypes } from './entities.ts';
import { RESERVED } from './load.ts';
import { yamlText } from './yaml-text.ts';

const WIDTH = 60;

/**
 * Makes holdfast.example.yaml: one entity of each type with what its parameters mean, and the sections with their most
 * useful settings. It loads as it is.
 */
export function renderExample(entityTypes: EntityTypes): string {
  const names = new Set<string>();
  const entities = Object.entries(entityTypes).map(([defines, { type }]) => {
    const short = type.sandbox?.name ?? defines.slice(defines.lastIndexOf('/') + 1);
    const name = unusedName(RESERVED.includes(short) ? defines.replaceAll('/', '-') : short, names);
    const { defines: _, ...parameters } = type.example;
    return `# ${type.title}\n${name}:\n  defines: ${defines}\n${indent(commented(parameters, type.schema.shape))}`;
  });
  return `${HEAD}\n${SECTIONS}\n---\nnamespace: my-app\n\n${COMMON}\n${entities.join('\n')}`;
}

/** Gives a name, with a number where it is taken, and takes it. */
export function unusedName(wanted: string, used: Set<string>): string {
  let name = wanted;
  for (let count = 2; used.has(name); count += 1) name = `${wanted}-${count}`;
  used.add(name);
  return name;
}

function commented(parameters: JsonObject, shape: Readonly<Record<string, z.core.$ZodType>>): string {
  return Object.entries(parameters)
    .map(([key, value]) => {
      const text = yamlText({ [key]: value });
      const schema = shape[key];
      const about = schema === undefined ? undefined : z.globalRegistry.get(schema as z.ZodType)?.description;
      if (about === undefined) return text;
      const note = `# ${about.replace(/\s+/g, ' ')}`;
      const [first = '', ...rest] = text.split('\n');
      return isObject(value) || first.length > WIDTH
        ? `${note}\n${text}`
        : [`${first.padEnd(40)} ${note}`, ...rest].join('\n');
    })
    .join('');
}

function indent(text: string): string {
  return text.replace(/^(?=.)/gm, '  ');
}

const HEAD = `# yaml-language-server: $schema=./holdfast.schema.json
#
# Every kind of database that Holdfast can look after, one of each. Keep those that you have.
# Secrets never stand in this file: name them as \${env:NAME} or \${file:/path}. They are read at first use.
# Other values may come from outside too: \${env:NAME}, \${env:NAME:-default}, \${file:/path}; write $$ for a plain $.
# holdfast check names everything that is wrong with this file, with line and column.
`;

const COMMON = `# Every entity may also have:
#   labels: { env: production }                                   matched by rules of the guard
#   objectives: { rpo: 15m, rto: 1h, min_retention: 14d, drill_every: 90d }    what you promised; kept for later checks
#   endpoint: https://10.0.0.5:8443                               a private endpoint or an emulator
#   schedules: { daily: "0 2 * * *" }                             calls by the clock while holdfast serve runs; docs/schedules.md
`;

const SECTIONS = `# Who may do what, and who has to agree. Rules are tried in order; the first that matches decides.
guard:
  confirm: human                # human, token or two-people
  read_only: false              # true denies everything but reading
  confirmation_ttl: 10m
  rules:
    - name: nothing risky in production at night
      labels: { env: production }
      risk: [weaken, delete, merge, overwrite]
      hours: { days: mon-fri, from: "20:00", to: "06:00" }
      decision: deny
      reason: Changes to production wait for the morning.
    - name: production needs two people
      labels: { env: production }
      risk: [delete, merge, overwrite]
      decision: confirm
      require: two-people
      approver: out-of-band     # answers of the caller's own client do not count

# How holdfast serve --http listens. Anything but loopback needs tokens and allowed_hosts.
server:
  host: 127.0.0.1
  port: 7311
  session_idle: 30m
  # tokens:
  #   - name: ci-bot
  #     sha256: <output of: printf %s "$TOKEN" | sha256sum>
  #     roles: [viewer, operator]

# Where Holdfast keeps the PostgreSQL backups that it takes itself; an entity names one with storage: main.
storage:
  main:
    type: local
    path: /var/lib/holdfast/backups
`;
