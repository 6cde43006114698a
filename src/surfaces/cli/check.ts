import type { Command } from 'commander';
import type { EntityBase } from '../../core/context.ts';
import { ERROR_CODES, type ErrorCode, HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import { didYouMean } from '../../core/text.ts';
import type { Engine } from '../../engine/api.ts';
import { missingPermission, permissionsOf, policyOf } from '../../engine/permissions.ts';
import { EXIT } from '../exit-statuses.ts';
import { type ActionAccess, type EntityAccess, probeEntities, type Reach, type ReadProbe } from './access.ts';
import { addCommand, type Cli, inFlight, principalOf, withEngine } from './context.ts';
import type { CheckedEntity, ConfigFault, ConfigReport } from './deps.ts';
import { progressBar } from './progress.ts';
import { type Style, styled } from './terminal.ts';

const DETAILS = `What it does:
  It reads the entities file, then asks every database's provider, by reads alone: whether the database is reached,
  what its credentials may and may not do, and what to fix, most urgent first, with the policy to paste where
  permissions lack. Where a provider cannot be asked for permissions, writes stay unknown until the first one.
  --offline reads the file and looks for the credentials that it names, and asks nobody.

Exit status:
  0 where nothing must be fixed, else that of the most urgent item: 33 the file, 26 credentials, 22 not found,
  29 not reached, 25 permissions.`;

/** One thing that somebody has to do. */
interface Fix {
  readonly code: ErrorCode;
  readonly what: string;
  readonly how: string;
  readonly entities: string[];
  readonly missing?: readonly string[] | undefined;
  readonly policy?: string | undefined;
}

// Most urgent first: what stops everything, what stops a database, what stops an action.
const URGENCY: readonly ErrorCode[] = [
  'CONFIG_INVALID',
  'AUTHENTICATION_FAILED',
  'RESOURCE_NOT_FOUND',
  'PROVIDER_UNAVAILABLE',
  'TIMEOUT',
  'INSUFFICIENT_PERMISSIONS',
  'STATE_UNAVAILABLE',
  'INTERNAL',
];

/** Adds `check`: the entities file, what its credentials reach and may do, and what to fix. */
export function addCheck(program: Command, cli: Cli): void {
  addCommand(
    program,
    'check',
    'check the entities file, and by reading what its credentials reach and may do',
    [
      'holdfast check',
      'holdfast check my-app/my-db --json',
      'holdfast check --offline --config ops/holdfast.yaml',
      'holdfast check --sandbox',
    ],
    DETAILS,
  )
    .argument('[entities...]', 'only these databases, <namespace>/<name>')
    .option('--offline', 'only the file and the credentials that it names; asks no provider')
    .action(async (keys: string[], { offline = false }: { offline?: boolean }) => {
      cli.exit = offline ? await checkOffline(cli, keys) : await check(cli, keys);
    });
}

async function readReport(cli: Cli): Promise<ConfigReport> {
  const { json: _json, ...options } = cli.options();
  return cli.deps.checkConfig(options);
}

async function checkOffline(cli: Cli, keys: readonly string[]): Promise<number> {
  const read = await readReport(cli);
  const report = { ...read, entities: chosen(read.entities, keys, read.faults.length === 0) };
  if (cli.options().json) cli.terminal.json({ ok: report.faults.length === 0, ...report });
  else printReport(cli, report);
  return report.faults.length === 0 ? EXIT.ok : ERROR_CODES.CONFIG_INVALID.exit;
}

async function check(cli: Cli, keys: readonly string[]): Promise<number> {
  const read = await readReport(cli);
  // A sandbox has its own databases; of the file only the sections count.
  const report = cli.options().sandbox ? { ...read, entities: [], warnings: [] } : read;
  const isSound = report.faults.length === 0;
  // With a fault in the file nothing can be opened, the policy least of all.
  const found = isSound ? await probe(cli, keys) : [];
  const declared = isSound ? chosen(report.entities, keys, false) : report.entities;
  const fixes = fixesOf(report, declared, found);
  if (cli.options().json) {
    const marked = cli.options().sandbox ? { sandbox: true } : {};
    cli.terminal.json({ ...documentOf(report, declared, found, fixes), ...marked });
  } else print(cli, { ...report, entities: declared }, found, fixes);
  return fixes[0] === undefined ? EXIT.ok : ERROR_CODES[fixes[0].code].exit;
}

function probe(cli: Cli, keys: readonly string[]): Promise<EntityAccess[]> {
  let found: EntityAccess[] = [];
  return withEngine(cli, async (engine) => {
    const entities = entitiesOf(engine, keys);
    const { terminal, deps } = cli;
    const onEntity = ({ key }: EntityBase, done: number): void =>
      terminal.status(progressBar({ message: `asking for ${key}`, percent: (done / entities.length) * 100 }));
    const options = { engine, entities, principal: principalOf(deps), signal: deps.signal, onEntity };
    found = await inFlight(cli, () => probeEntities(options));
    return EXIT.ok;
  }).then(() => found);
}

function entitiesOf(engine: Engine, keys: readonly string[]): readonly EntityBase[] {
  return keys.length === 0 ? engine.entities() : [...new Set(keys)].map((key) => engine.entity(key));
}

function chosen(entities: readonly CheckedEntity[], keys: readonly string[], strict: boolean): CheckedEntity[] {
  const known = entities.map(({ key }) => key);
  const unknown = strict ? keys.find((key) => !known.includes(key)) : undefined;
  if (unknown !== undefined) {
    throw new HoldfastError('ENTITY_NOT_FOUND', `no entity '${unknown.slice(0, 100)}' is configured`, {
      hint: didYouMean(unknown, known),
    });
  }
  return entities.filter(({ key }) => keys.length === 0 || keys.includes(key));
}

// What to fix ---------------------------------------------------------------------------------------------------------

function fixesOf(report: ConfigReport, declared: readonly CheckedEntity[], found: readonly EntityAccess[]): Fix[] {
  const fixes: Fix[] = [];
  const add = (fix: Omit<Fix, 'entities'>, entity?: string): void => {
    const same = fixes.find(
      ({ code, what, policy }) => code === fix.code && what === fix.what && policy === fix.policy,
    );
    const entities = same?.entities ?? [];
    if (entity !== undefined && !entities.includes(entity)) entities.push(entity);
    if (same === undefined) fixes.push({ ...fix, entities });
  };
  if (report.faults.length > 0) {
    const how = 'Each stands above with its place and what to write instead; then check again.';
    const what = `the entities file has ${countOf(report.faults.length, 'fault')}, and nothing runs before they are gone`;
    add({ code: 'CONFIG_INVALID', what, how });
  }
  for (const { key, credentials } of declared) {
    for (const { name, found: isThere } of credentials) if (!isThere) add(absentCredential(name), key);
  }
  for (const access of found) {
    const lacking = lackingPermissions(access, report.read_only === true);
    if (lacking !== undefined) add(lacking, access.entity.key);
    for (const { error } of access.reads) {
      if (error === undefined || error.code === 'INSUFFICIENT_PERMISSIONS' || !URGENCY.includes(error.code)) continue;
      const named = error.details?.['variable'] ?? error.details?.['file'];
      const absent = declared
        .find(({ key }) => key === access.entity.key)
        ?.credentials.find(
          ({ name, found: isThere }) =>
            !isThere && (nameIn(name) === named || error.message.includes(`'${nameIn(name)}'`)),
        );
      // It is among those that are not there.
      if (absent === undefined)
        add({ code: error.code, what: error.message, how: adviceOf(error, access) }, access.entity.key);
    }
  }
  return fixes.sort((a, b) => URGENCY.indexOf(a.code) - URGENCY.indexOf(b.code));
}

function adviceOf({ code, hint }: HoldfastError, { entity: { endpoint } }: EntityAccess): string {
  if (code !== 'PROVIDER_UNAVAILABLE' || hint !== ERROR_CODES[code].hint) return hint;
  const where = endpoint === undefined ? '' : ` at ${endpoint}`;
  return `Nothing answers properly${where}: check the network between here and there${endpoint === undefined ? ', a proxy or firewall among it' : ', and that address'}, then check again.`;
}

/** What a reference names: `NAME` of `${env:NAME}`. */
function nameIn(reference: string): string {
  return /^\$\{(?:env|file):(.+)\}$/.exec(reference)?.[1] ?? reference;
}

function absentCredential(reference: string): Omit<Fix, 'entities'> {
  const name = nameIn(reference);
  return reference.startsWith('${file:')
    ? {
        code: 'AUTHENTICATION_FAILED',
        what: `the secret file '${name}' is not there`,
        how: `Write the secret into '${name}', readable only for the user that Holdfast runs as.`,
      }
    : {
        code: 'AUTHENTICATION_FAILED',
        what: `the variable '${name}' is not set`,
        how: `Set ${name} for Holdfast. An MCP client passes it on only if its entry for holdfast names it under "env".`,
      };
}

/** One item for all permissions that an entity lacks; undefined where it lacks none that the policy would let it use. */
function lackingPermissions(
  { entity, actions, reads, guide }: EntityAccess,
  readOnly: boolean,
): Omit<Fix, 'entities'> | undefined {
  const refused = actions.filter(({ state, reads: isRead }) => state === 'refused' && (isRead || !readOnly));
  if (refused.length === 0) return undefined;
  const errors = new Map(reads.flatMap(({ action, error }) => (error === undefined ? [] : [[action, error] as const])));
  const missing = refused.flatMap(({ action, lacks }) => {
    const error = errors.get(action);
    const named = error === undefined ? undefined : missingPermission(error);
    if (lacks.length > 0) return lacks;
    return named === undefined ? (guide === undefined ? [] : permissionsOf(guide, action)) : [named];
  });
  const unique = [...new Set(missing)];
  const told = refused.map(({ action }) => errors.get(action)).find((error) => error !== undefined);
  const what = `the credentials may not ${refused.map(({ action }) => action).join(', ')}`;
  if (guide === undefined || unique.length === 0) {
    return { code: 'INSUFFICIENT_PERMISSIONS', what, how: told?.hint ?? ERROR_CODES.INSUFFICIENT_PERMISSIONS.hint };
  }
  const policy = policyOf(guide, unique, entity.parameters);
  const how = `Add this to the ${guide.grant}: ${unique.join(', ')}.`;
  return { code: 'INSUFFICIENT_PERMISSIONS', what, how, missing: unique, policy };
}

// Writing it ----------------------------------------------------------------------------------------------------------

function documentOf(
  report: ConfigReport,
  declared: readonly CheckedEntity[],
  found: readonly EntityAccess[],
  fixes: readonly Fix[],
): object {
  const keys = found.length === 0 ? declared.map(({ key }) => key) : found.map(({ entity }) => entity.key);
  return {
    ok: fixes.length === 0,
    file: report.file,
    faults: report.faults,
    warnings: report.warnings,
    entities: keys.map((key) => {
      const access = found.find(({ entity }) => entity.key === key);
      const known = declared.find((entity) => entity.key === key);
      return {
        key,
        defines: access?.entity.defines ?? known?.defines,
        ignored: known?.ignored ?? [],
        credentials: known?.credentials ?? [],
        ...(access === undefined ? {} : { access: accessDocument(access) }),
      };
    }),
    fixes,
  };
}

function accessDocument({ state, reads, asked, actions }: EntityAccess): object {
  return {
    state,
    reads: reads.map(({ action, state: own, error }) => ({
      action,
      state: own,
      ...(error === undefined ? {} : { error: briefError(error) }),
    })),
    permissions_told: asked,
    actions: actions.map(({ action, state: own, lacks }) => ({ action, state: own, lacks })),
  };
}

// The policy stands once, among the fixes.
function briefError({ code, message, hint }: HoldfastError): JsonObject {
  return { code, message, hint };
}

function print(cli: Cli, report: ConfigReport, found: readonly EntityAccess[], fixes: readonly Fix[]): void {
  const { terminal } = cli;
  printFaults(cli, report);
  for (const { key, defines, ...declared } of found.length === 0 ? report.entities : []) {
    printDeclared(cli, { key, defines, ...declared });
  }
  for (const access of found) {
    const { key, defines } = access.entity;
    printDeclared(cli, report.entities.find((entity) => entity.key === key) ?? bare(key, defines));
    printAccess(cli, access);
  }
  if (found.length === 0 && report.faults.length === 0) {
    terminal.line(
      report.file === undefined
        ? 'No entities file was found here or above. holdfast init writes one from what your credentials show.'
        : `${report.file}: no database is declared. holdfast init --append adds what your credentials show.`,
    );
    return;
  }
  if (found.length > 0) terminal.line('');
  printSummary(cli, report, found, fixes);
  for (const [index, fix] of fixes.entries()) printFix(cli, index + 1, fix);
}

function bare(key: string, defines: string): CheckedEntity {
  return { key, defines, ignored: [], credentials: [] };
}

const REACH_WORDS: Readonly<Record<Reach, readonly [string, Style]>> = {
  reachable: ['reachable', 'green'],
  refused: ['REFUSED', 'red'],
  not_found: ['NOT FOUND', 'red'],
  not_reachable: ['NOT REACHED', 'red'],
  not_supported: ['reachable, but not supported', 'yellow'],
  failed: ['FAILED', 'red'],
};

function printAccess({ terminal }: Cli, { state, reads, asked, actions, guide }: EntityAccess): void {
  const [word, style] = REACH_WORDS[state];
  const answered = reads.filter((read) => read.state === 'reachable').map(({ action }) => action);
  const isReached = state === 'reachable';
  terminal.line('  ', styled(style, word), isReached ? `: ${answered.join(', ')} answered` : '');
  for (const { action, error } of reads) if (error !== undefined) terminal.line(`  ${failureLine(action, error)}`);
  if (!isReached) return;
  const may = actions.filter((action) => action.state === 'granted' && !answered.includes(action.action));
  if (may.length > 0) terminal.line(`  may: ${may.map(({ action }) => action).join(', ')}`);
  for (const { action, lacks } of actions.filter((candidate) => candidate.state === 'refused')) {
    terminal.line(`  ${action}: `, styled('red', 'refused'), lacks.length === 0 ? '' : `, lacks ${lacks.join(', ')}`);
  }
  // What a read may is found out by reading; of a write nothing is found out but by asking.
  const unknown = actions.filter(({ state: own, reads: isRead }) => own === 'unknown' && (asked || !isRead));
  if (unknown.length === 0) return;
  const why = asked
    ? 'the provider does not tell'
    : `the provider cannot be asked without trying${guide === undefined ? '' : `; it is up to the ${guide.grant}`}`;
  const what = unknown.every(({ reads: isRead }) => !isRead) ? 'writes ' : '';
  terminal.line(`  ${what}`, styled('yellow', 'not known'), `: ${names(unknown)} (${why})`);
}

function names(actions: readonly ActionAccess[]): string {
  return actions.map(({ action }) => action).join(', ');
}

function failureLine(action: string, { code, message }: NonNullable<ReadProbe['error']>): string {
  return `${action}: ${code}: ${message}`;
}

function printSummary(
  { terminal, options }: Cli,
  report: ConfigReport,
  found: readonly EntityAccess[],
  fixes: readonly Fix[],
): void {
  const { sandbox } = options();
  const reached = found.filter(({ state }) => state === 'reachable' || state === 'not_supported').length;
  terminal.line(
    sandbox ? 'sandbox: ' : report.file === undefined ? '' : `${report.file}: `,
    found.length === 0
      ? countOf(report.entities.length, 'database')
      : `${reached} of ${countOf(found.length, 'database')} reached`,
    ', ',
    fixes.length === 0 ? styled('green', 'nothing to fix') : styled('red', `${countOf(fixes.length, 'thing')} to fix:`),
  );
  if (report.faults.length > 0) terminal.line('No provider was asked.');
}

function printFix({ terminal }: Cli, number: number, { what, how, entities, policy }: Fix): void {
  const where = entities.length === 0 ? '' : `${entities.join(', ')}: `;
  terminal.line('');
  terminal.line(styled('bold', `${number}. ${where}`), what);
  terminal.line(`   ${how}`);
  for (const line of policy?.split('\n') ?? []) terminal.line(`     ${line}`);
}

function printFaults({ terminal }: Cli, report: ConfigReport): void {
  const found = [
    ...report.faults.map((fault) => ({ fault, kind: styled('red', 'error') })),
    ...report.warnings.map((fault) => ({ fault, kind: styled('yellow', 'warning') })),
  ];
  for (const { fault, kind } of found) {
    terminal.line(styled('bold', `${placeOf(fault, report.file)}: `), kind, ` ${fault.message}`);
    if (fault.suggestion !== undefined && fault.suggestion !== '') terminal.line(`  ${fault.suggestion}`);
  }
  if (found.length > 0) terminal.line('');
}

function printDeclared({ terminal }: Cli, entity: CheckedEntity): void {
  terminal.line(styled('bold', entity.key), ` ${entity.defines}`);
  for (const { name, found } of entity.credentials) {
    terminal.line(`  credential ${name}: `, found ? styled('green', 'found') : styled('red', 'NOT FOUND'));
  }
  if (entity.ignored.length > 0) terminal.line(styled('dim', `  no effect here: ${entity.ignored.join(', ')}`));
}

function printReport(cli: Cli, report: ConfigReport): void {
  const { terminal } = cli;
  printFaults(cli, report);
  for (const entity of report.entities) printDeclared(cli, entity);
  if (report.file === undefined && report.faults.length === 0) {
    terminal.line('No entities file was found here or above. Write holdfast.yaml, or name one with --config.');
    return;
  }
  const absent = report.entities.reduce((sum, { credentials }) => sum + credentials.filter((c) => !c.found).length, 0);
  terminal.line(
    report.file === undefined ? 'No entities file' : report.file,
    `: ${countOf(report.entities.length, 'database')}, `,
    report.faults.length === 0 ? styled('green', 'no faults') : styled('red', countOf(report.faults.length, 'fault')),
    absent === 0 ? '' : styled('yellow', `, ${countOf(absent, 'credential')} not found`),
  );
}

function placeOf(fault: ConfigFault, file: string | undefined): string {
  return [fault.file ?? file ?? 'holdfast.yaml', fault.line, fault.line === undefined ? undefined : fault.column]
    .filter((part) => part !== undefined)
    .join(':');
}

function countOf(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}
