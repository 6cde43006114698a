import { z } from 'zod';
import type { Action, AnyAction, FleetAction } from '../../core/action.ts';
import { isObject } from '../../core/json.ts';
import { type Provider, STANDARD_ACTIONS } from '../../core/provider.ts';
import { isGuarded } from '../../core/risk.ts';
import { exampleLine } from '../command-line.ts';
import { exitStatuses } from '../exit-statuses.ts';
import { cell, table } from '../markdown.ts';
import { type Parameter, parametersOf, riskText, shapeOf, typeText } from '../parameters.ts';

const SOME_ENTITY = 'my-app/my-db';

const HEAD = `# Actions

Everything that Holdfast can do, generated from the declarations in \`tools/\`: the same action is an MCP tool and a
command line. \`npm run generate\` writes this page anew; a test fails when it is stale.

- **Risk** \`read\` and \`create\`, \`change\` run at once. \`weaken\`, \`delete\`, \`merge\` and \`overwrite\` show a plan and need a
  confirmation. Where two risks stand, a look at the target decides which one a call has.
- Every tool on databases takes \`entity\`, the key of a configured database; guarded ones take \`confirmation_token\` too.
- Timestamps are RFC 3339 UTC, sizes bytes, durations seconds.
- An action that outlives its call answers with an operation: \`operation_id\`, \`status\`, \`steps\` and, at the end, its result.
- Any action may also answer with an error of the guard or of the call itself: \`INVALID_PARAMETER\`, \`ENTITY_NOT_FOUND\`,
  \`CONFIRMATION_*\`, \`PLAN_CHANGED\`, \`POLICY_DENIED\`; the lists below name what is special.
`;

/** Writes the reference of all actions as Markdown: per provider what it has and has not, then every action. Pure. */
export function renderActions(actions: readonly AnyAction[], providers: readonly Provider[]): string {
  const fleet = actions.filter((action): action is FleetAction => action.kind === 'fleet');
  const sections = providers.map((provider) => {
    const own = actions.filter(
      (action): action is Action => action.kind === 'provider' && action.provider === provider,
    );
    return renderProvider(provider, own);
  });
  const titles = ['Across all databases', ...providers.map((provider) => provider.title), EXIT_TITLE];
  return [
    HEAD,
    titles.map((title) => `- [${title}](#${anchor(title)})`).join('\n'),
    '',
    renderOverview(actions, providers),
    '## Across all databases\n',
    'They need no `entity` in their path: `holdfast do list-databases`, `holdfast do backup/list-databases`. Those that take\nan `entity` can have it in the path too: `holdfast do my-app/my-db/find-recovery-options`.\n',
    ...fleet.map((action) => renderAction(action, SOME_ENTITY)),
    ...sections,
    renderExitStatuses(),
  ]
    .join('\n')
    .replace(/\n{3,}/g, '\n\n')
    .trimEnd()
    .concat('\n');
}

const EXIT_TITLE = 'Exit statuses of the command line';

function renderExitStatuses(): string {
  const rows = exitStatuses().map(({ exit, meaning, codes }) => [
    String(exit),
    codes.map((code) => `\`${code}\``).join(', '),
    cell(meaning),
  ]);
  return `## ${EXIT_TITLE}\n\n${table(['status', 'errors', ''], rows)}\n`;
}

function renderOverview(actions: readonly AnyAction[], providers: readonly Provider[]): string {
  const rows = STANDARD_ACTIONS.map((name) => {
    const cells = providers.map((provider) => {
      const action = actions.find((one) => one.kind === 'provider' && one.provider === provider && hasName(one, name));
      return action === undefined ? `[no](#${anchor(provider.title)})` : riskText(action);
    });
    return [`\`${name}\``, ...cells];
  });
  return `## Who has what\n\n${table(['', ...providers.map(({ title }) => cell(title))], rows)}\n\nEach *no* leads to its reason and to what to use instead.\n`;
}

function renderProvider(provider: Provider, own: readonly Action[]): string {
  const types = Object.entries(provider.entityTypes);
  const rows = STANDARD_ACTIONS.map((name) => {
    const action = own.find((candidate) => hasName(candidate, name));
    if (action === undefined) return [`\`${name}\``, 'no', cell(provider.cannot[name] ?? '')];
    return [`\`${name}\``, `[${riskText(action)}](#${anchor(toolName(action))})`, cell(action.title)];
  });
  return [
    `## ${provider.title}\n`,
    `Entity types: ${types.map(([defines, { title }]) => `\`${defines}\` (${cell(title)})`).join(', ')}.\n`,
    table(['standard action', 'risk', ''], rows),
    '',
    ...own
      .filter((action) => !action.shared)
      .map((action) => renderAction(action, entityFor(action, provider) ?? SOME_ENTITY)),
    renderSettings(provider),
  ].join('\n');
}

function renderSettings({ title, settings, cannot }: Provider): string {
  const head = `#### Declared settings of ${title}\n`;
  if (settings === undefined) return `${head}\n${cannot['check-settings'] ?? 'None.'}\n`;
  const rows = Object.entries(settings.about).map(([name, about]) => [`\`${name}\``, cell(about)]);
  return `${head}\n\`check-settings\` and \`apply-settings\` know these parameters of the entities file.\n\n${table(['parameter', ''], rows)}\n`;
}

function renderAction(action: AnyAction, entity: string): string {
  const parameters = parametersOf(action);
  const isOperation = action.kind === 'provider' && action.steps !== undefined;
  const notes = [
    `- MCP tool \`${toolName(action)}\``,
    `- Risk: ${riskText(action)}${isGuarded(action.upTo) ? ', guarded' : ''}`,
    ...(action.aliases.length === 0 ? [] : [`- Also called ${action.aliases.map((name) => `\`${name}\``).join(', ')}`]),
    ...(action.kind === 'provider' && action.on.length < Object.keys(action.provider.entityTypes).length
      ? [`- On ${action.on.map((defines) => `\`${defines}\``).join(', ')} only`]
      : []),
    `- Errors: ${action.errors.length === 0 ? 'none of its own' : action.errors.map((code) => `\`${code}\``).join(', ')}`,
    ...(action.kind === 'provider' ? [`- Source: ${cell(action.source)}`] : []),
  ];
  return [
    `### ${toolName(action)}\n`,
    `**${action.title}.** ${action.summary}\n`,
    `\`\`\`sh\n${exampleLine(action, entity)}\n\`\`\`\n`,
    notes.join('\n'),
    '',
    parameters.length === 0
      ? 'Takes no parameters.'
      : table(['parameter', 'type', 'required', 'description'], parameterRows(parameters)),
    '',
    isOperation ? 'Answers with an operation; at its end `result` holds:\n' : 'Answers with:\n',
    `\`\`\`ts\n${formText(z.toJSONSchema(action.output, { io: 'output', unrepresentable: 'any' }), '')}\n\`\`\``,
    '',
  ].join('\n');
}

function parameterRows(parameters: readonly Parameter[]): string[][] {
  return parameters.map(({ name, shape, required, description = '', fallback, secret }) => [
    `\`${name}\``,
    cell(typeText(shape)),
    required ? 'yes' : '',
    cell(
      [
        description,
        fallback === undefined ? '' : `default \`${JSON.stringify(fallback)}\``,
        secret ? 'masked in plans, logs and the audit trail' : '',
      ]
        .filter((part) => part !== '')
        .join('; '),
    ),
  ]);
}

const FORM_WIDTH = 100;

// The form of an answer, as TypeScript would write it: on one line where it fits.
function formText(schema: unknown, indent: string): string {
  if (!isObject(schema)) return 'unknown';
  const branches = [schema['anyOf'], schema['oneOf']].find(Array.isArray);
  if (branches !== undefined) return branches.map((branch) => formText(branch, indent)).join(' | ');
  if (schema['items'] !== undefined) return listText(formText(schema['items'], indent));
  if (!isObject(schema['properties'])) return scalarText(schema);
  const required: unknown[] = Array.isArray(schema['required']) ? schema['required'] : [];
  const inner = `${indent}  `;
  const members = Object.entries(schema['properties']).map(
    ([name, member]) => `${name}${required.includes(name) ? '' : '?'}: ${formText(member, inner)}`,
  );
  const line = `{ ${members.join('; ')} }`;
  if (members.length === 0) return '{}';
  if (indent.length + line.length <= FORM_WIDTH && !line.includes('\n')) return line;
  return `{\n${members.map((member) => `${inner}${member};`).join('\n')}\n${indent}}`;
}

function listText(item: string): string {
  return item.includes(' | ') ? `(${item})[]` : `${item}[]`;
}

function scalarText(schema: Record<string, unknown>): string {
  const { types, values } = shapeOf(schema);
  if (values.length > 0) return values.map((value) => JSON.stringify(value)).join(' | ');
  if (types.has('object')) return 'Record<string, unknown>';
  return types.size === 0 ? 'unknown' : [...types].map((type) => (type === 'integer' ? 'number' : type)).join(' | ');
}

function entityFor(action: Action, provider: Provider): string | undefined {
  const name = action.on
    .map((defines) => provider.entityTypes[defines]?.sandbox?.name)
    .find((one) => one !== undefined);
  return name === undefined ? undefined : `sandbox/${name}`;
}

function hasName(action: AnyAction, name: string): boolean {
  return action.name === name || action.aliases.includes(name);
}

function toolName(action: AnyAction): string {
  const prefix = action.kind === 'fleet' ? 'backup' : action.provider.id;
  return `${prefix}_${action.name}`.replaceAll('-', '_');
}

// As GitHub makes them: lower case, spaces to hyphens, punctuation gone.
function anchor(title: string): string {
  return title
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-');
}
