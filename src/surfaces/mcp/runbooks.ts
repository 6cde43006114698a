import type { z } from 'zod';
import type { Action, AnyAction } from '../../core/action.ts';
import type { EntityBase } from '../../core/context.ts';
import type { JsonObject } from '../../core/json.ts';
import type { SuggestedCall } from '../../core/plan.ts';
import type { Provider, SharedAction, StandardAction } from '../../core/provider.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration } from '../../core/time.ts';
import type { Engine } from '../../engine/api.ts';
import { type RenderOptions, renderCall } from '../render.ts';
import { EXAMPLE_WORDS } from './guide.ts';
import type { RunbookName } from './runbook-list.ts';

/** What a runbook is filled with: one database and what is known of the occasion, or every configured database. */
export interface Occasion {
  readonly entity?: EntityBase | undefined;
  /** The moment to get back to. */
  readonly at?: string | undefined;
  /** What is about to be changed. */
  readonly change?: string | undefined;
  readonly snapshot_id?: string | undefined;
}

export interface RunbookReader {
  readonly engine: Engine;
  readonly options: RenderOptions;
  /** Whether the reader may make calls that change something. */
  readonly operates: boolean;
}

/** One step: what to do, the calls to make for one database, what to show the person. */
interface Stage {
  readonly title: string;
  readonly text: string;
  readonly calls?: (subject: Subject) => readonly Next[];
  readonly show?: string;
}

/** A call to make, or what to know where there is none. */
type Next = SuggestedCall | string;

interface Runbook {
  /** The person's request, as a prompt says it. */
  ask(name: string, occasion: Occasion): string;
  readonly aim: string;
  stages(occasion: Occasion): readonly Stage[];
}

const OPERATION = '<operation_id of the answer>';
const FAILED: JsonObject = { status: 'failed', limit: 20 };

/** Writes a runbook for one database or, without one, for all that are configured; Markdown. */
export function renderRunbook(reader: RunbookReader, name: RunbookName, title: string, given: Occasion): string {
  const { engine } = reader;
  const occasion = tidy(given);
  const book = RUNBOOKS[name];
  const entities = occasion.entity === undefined ? engine.entities() : [occasion.entity];
  const subjects = subjectsOf(engine, entities, occasion);
  const stages = book.stages(occasion).map((stage, at) => writeStage(reader, stage, at + 1, subjects));
  return [
    `# ${title}`,
    book.aim,
    ...(engine.sandbox ? ['This is the sandbox: nothing real can be lost.'] : []),
    ...(reader.operates ? [] : ['You may only read here: hand every call that changes something to an operator.']),
    ...(occasion.entity === undefined ? [fleetText(subjects)] : []),
    ...stages,
    RULES,
  ]
    .join('\n\n')
    .concat('\n');
}

/** Writes what a person would ask for, with the runbook for their database. */
export function renderRequest(reader: RunbookReader, name: RunbookName, title: string, given: Occasion): string {
  const occasion = tidy(given);
  const subject = occasion.entity === undefined ? 'our databases' : `the database ${occasion.entity.key}`;
  return `${RUNBOOKS[name].ask(subject, occasion)}\n\n${renderRunbook(reader, name, title, given)}`;
}

// What a person typed becomes part of a line, and of a call.
function tidy({ entity, at, change, snapshot_id }: Occasion): Occasion {
  const clean = (text: string | undefined, most: number): string | undefined =>
    text === undefined || text.trim() === '' ? undefined : cleanText(text, most).replaceAll('`', "'");
  return { entity, at: clean(at, 40), change: clean(change, 200), snapshot_id: clean(snapshot_id, 300) };
}

const RULES = [
  '## Rules',
  '- Never approve a confirmation yourself, and never change an argument after an approval.',
  '- Prefer what makes something new (risk `create`) over what replaces live data, unless the person says otherwise.',
  '- A status `unknown` means that nobody knows whether the change arrived. Read the state of the target; do not repeat the call.',
  '- Say what is not known. Do not guess a moment, a size or a name.',
].join('\n');

/** One database and the calls that it knows; in a runbook for all, one stands for all of its type. */
class Subject {
  readonly key: string;
  readonly type: string;
  readonly others: number;
  readonly #engine: Engine;
  readonly #entity: EntityBase;
  readonly #occasion: Occasion;

  constructor(engine: Engine, entity: EntityBase, others: number, occasion: Occasion) {
    this.#engine = engine;
    this.#entity = entity;
    this.#occasion = occasion;
    this.key = entity.key;
    this.type = entity.defines;
    this.others = others;
  }

  /** A call of an action across all databases, about this one. */
  about(action: string, input: JsonObject = {}): SuggestedCall {
    return { entity: this.key, action, input };
  }

  /** A call of an action that not every provider has, with those of `extra` that it takes; or why there is none. */
  own(action: StandardAction | 'verify-snapshot', extra: JsonObject = {}): Next[] {
    const found = this.find(action);
    return found === undefined ? this.#absent(action as StandardAction) : [this.#filled(found, extra)];
  }

  /** A call about the declared settings, or why there are none. */
  settings(action: SharedAction, input: JsonObject = {}): Next[] {
    if (this.#provider?.settings !== undefined) return [this.about(action, input)];
    return this.#absent(action);
  }

  /** The actions of this database that delete something other than a backup or a schedule of backups. */
  removals(): Next[] {
    return this.#actions()
      .filter(({ name, risk }) => risk === 'delete' && !/snapshot|backup/.test(name))
      .map((action) => this.#filled(action, {}));
  }

  /** What the entity promises; one that promises nothing says so. */
  objectives(): string {
    const { rpo, rto } = this.#entity.objectives;
    const promised = [
      ...(rpo === undefined ? [] : [`at most ${formatDuration(rpo)} of writes lost`]),
      ...(rto === undefined ? [] : [`back within ${formatDuration(rto)}`]),
    ];
    return promised.length === 0 ? 'no objectives are declared' : `${this.key} promises ${promised.join(', ')}`;
  }

  find(name: string): Action | undefined {
    return this.#actions().find((action) => action.name === name);
  }

  get #provider(): Provider | undefined {
    return this.#actions()[0]?.provider;
  }

  /** Fills in what a call must have: a value that the occasion or `extra` gives, else the name of what belongs there. */
  #filled(action: Action, extra: JsonObject): SuggestedCall {
    const { snapshot_id } = this.#occasion;
    const words: Readonly<Record<string, string>> = {
      ...EXAMPLE_WORDS,
      ...(snapshot_id === undefined ? {} : { $newest: snapshot_id }),
    };
    const input: JsonObject = {};
    for (const [name, schema] of Object.entries(action.input.shape)) {
      const marker = action.example[name];
      const needed = !(schema as z.ZodType).safeParse(undefined).success;
      const given = typeof marker === 'string' ? words[marker] : undefined;
      const value = given ?? extra[name] ?? (needed ? `<${name}>` : undefined);
      if (value !== undefined) input[name] = value;
    }
    return { entity: this.key, action: action.name, input };
  }

  #absent(action: StandardAction | SharedAction): string[] {
    const reason = this.#provider?.cannot[action];
    return reason === undefined ? [] : [`${action} is not there: ${reason}`];
  }

  #actions(): Action[] {
    const isOwn = (action: AnyAction): action is Action =>
      action.kind === 'provider' && !action.shared && action.on.includes(this.type);
    return this.#engine.actions().filter(isOwn);
  }
}

function subjectsOf(engine: Engine, entities: readonly EntityBase[], occasion: Occasion): Subject[] {
  const byType = new Map<string, EntityBase[]>();
  for (const entity of entities) byType.set(entity.defines, [...(byType.get(entity.defines) ?? []), entity]);
  return [...byType.values()].map((same) => new Subject(engine, same[0]!, same.length - 1, occasion));
}

function fleetText(subjects: readonly Subject[]): string {
  const lines = subjects.map(
    ({ key, type, others }) => `- ${type}: \`${key}\`${others === 0 ? '' : ` and ${others} more`}`,
  );
  return `## The databases\n\nThe calls below name one database of each type; put the one that it is about in its place.\n\n${lines.join('\n')}`;
}

function writeStage({ options }: RunbookReader, stage: Stage, at: number, subjects: readonly Subject[]): string {
  const lines = linesOf(stage, subjects, options);
  return [
    `## ${at}. ${stage.title}`,
    stage.text,
    ...(lines.length === 0 ? [] : [lines.join('\n')]),
    ...(stage.show === undefined ? [] : [`Show the person: ${stage.show}`]),
  ].join('\n\n');
}

/** The calls of a step, and what there is to know instead; what is the same for several types stands once. */
function linesOf({ calls }: Stage, subjects: readonly Subject[], options: RenderOptions): string[] {
  const typesByLine = new Map<string, string[]>();
  const written = new Map<string, string>();
  for (const subject of subjects) {
    for (const next of calls?.(subject) ?? []) {
      const line = typeof next === 'string' ? next : `\`${renderCall(next, options)}\``;
      // The same tool for another database: the first one stands for all.
      const key = line.replaceAll(subject.key, '');
      if (!written.has(key)) written.set(key, line);
      if (typeof next === 'string') typesByLine.set(key, [...(typesByLine.get(key) ?? []), subject.type]);
    }
  }
  return [...written].map(([key, line]) => {
    const types = typesByLine.get(key);
    return `- ${types === undefined || subjects.length === 1 ? '' : `${types.join(', ')}: `}${line}`;
  });
}

const WAITING: Stage = {
  title: 'Wait until it is over',
  text: 'The answer has an operation_id. Follow it, and call again while it is pending or running. A restore that is still loading is not done.',
  calls: () => [{ action: 'wait-operation', input: { operation_id: OPERATION } }],
  show: 'how far it is when it takes minutes, and the error with its hint where it fails.',
};

/** Looks at what a restore would do before it is asked for. */
function planning(demand: string): Stage {
  return {
    title: 'Look at the plan',
    text: `A dry run of the chosen call, with the input that the option gives. ${demand}`,
    calls: (subject) => [
      subject.about('plan', { action: 'restore', input: { '<parameter>': '<as the chosen option gives it>' } }),
    ],
    show: 'the target, what is lost and since when, the safety snapshot, how to undo it, safer ways, and everything under unknowns.',
  };
}

const RESTORING: Stage = {
  title: 'Restore',
  text: 'Once the person agreed, make exactly the call of the option. Where it answers CONFIRMATION_REQUIRED nothing has run: show that plan, wait for the approval, and repeat the same call with confirmation_token.',
};

const RUNBOOKS: Readonly<Record<RunbookName, Runbook>> = {
  'lost-data': {
    ask: (subject, { at }) =>
      `Data of ${subject} is damaged or gone. Help me get it back${at === undefined ? '' : ` as it was at ${at}`}, step by step as below.`,
    aim: 'Data is gone, wrong or locked. Get back as much of it as there is, and lose nothing more on the way.',
    stages: ({ at, snapshot_id }) => [
      {
        title: 'Stop the loss',
        text: 'Ask what happened, when the data was last known to be good, and what still writes to the database. Whatever writes wrong data, or deletes old backups, has to stop first. A restore may already be running.',
        calls: (subject) => [subject.about('list-operations', { limit: 10 })],
        show: 'what is running already.',
      },
      {
        title: 'Find every way back',
        text: 'Each option has the moment of its data, what it loses, its risk and the exact call.',
        calls: (subject) => [
          subject.about('find-recovery-options', at === undefined ? {} : { at }),
          ...(snapshot_id === undefined ? [] : subject.own('describe-snapshot')),
        ],
        show: 'all options as a table: moment, what it loses, risk, how long it takes. No option at all is an answer too: then look for copies outside.',
      },
      {
        title: 'Choose together',
        text: 'Recommend one and say why. A restore into something new leaves the damaged data as evidence and can be compared; replacing live data is for when time matters more. The person chooses.',
      },
      planning('Go on only when it says what was expected.'),
      RESTORING,
      WAITING,
      {
        title: 'Check before anything uses it',
        text: 'Look at the restored data with the person: newest record, row counts, the record that was missed. Only then does an application point to it.',
        calls: (subject) => subject.own('get-restore-status'),
        show: 'what is back, what is lost for good, how long it took, and the call under undo of the operation.',
      },
      {
        title: 'Leave it in order',
        text: 'Is the restored database backed up itself? What was made on the way costs money: list it, and let the person decide what goes.',
        calls: (subject) => subject.own('get-backup-info'),
      },
    ],
  },
  'point-in-time': {
    ask: (subject, { at }) =>
      `Bring back ${subject} as it was at ${at ?? 'a moment that we have to find'}, step by step as below.`,
    aim: 'Something wrong was written at a known moment. Get the data back as it was just before it.',
    stages: ({ at }) => [
      {
        title: 'Pin the moment',
        text: `It has to lie before the fault, with its time zone: ${at ?? 'for example 2026-11-21T13:59:00Z'}. Logs, a deployment, or the first wrong record tell it. When in doubt take the earlier one: what is missing can be added, what is wrong has to be found.`,
        show: 'the moment in UTC and in their own time, and what was written after it.',
      },
      {
        title: 'See whether that moment can be reached',
        text: 'Point-in-time recovery has a window, from the earliest to the latest moment.',
        calls: (subject) => subject.own('get-backup-info'),
      },
      {
        title: 'Find the ways back to it',
        text: 'Compare the moment of each option with the one that was asked for: what was written between them is lost.',
        calls: (subject) => [subject.about('find-recovery-options', { at: at ?? '<moment, RFC 3339 UTC>' })],
        show: 'the nearest options, and how far each is from the moment.',
      },
      planning('A restore beside the live database has the risk create.'),
      RESTORING,
      WAITING,
      {
        title: 'Compare, then decide what goes back',
        text: 'Is the fault absent in the restored data, and what was written after the moment present in the live data? Often a few rows copied over are better than switching to the copy: the writes since then stay.',
        show: 'both states side by side, and the two choices: copy the missing data over, or switch.',
      },
    ],
  },
  'pre-change-backup': {
    ask: (subject, { change }) =>
      `Before ${change === undefined ? 'I change something' : `this change: ${change}`}, make sure that we can go back on ${subject}, step by step as below.`,
    aim: 'A migration or an upgrade is about to begin. Have a way back that is known to work before it does.',
    stages: ({ change }) => [
      {
        title: 'Look at what there is',
        text: 'Read the warnings. A backup or a restore that is running may be in the way.',
        calls: (subject) => [
          ...subject.own('get-backup-info'),
          subject.about('list-operations', { status: 'running' }),
        ],
        show: 'the newest backup, whether point-in-time recovery is on, and the warnings.',
      },
      {
        title: 'Take a backup',
        text: 'Where none can be taken on demand, write down the present moment: it is the one to come back to.',
        calls: (subject) =>
          subject.own(
            'create-snapshot',
            change === undefined ? {} : { description: `before: ${cleanText(change, 80)}` },
          ),
      },
      WAITING,
      {
        title: 'Make sure of it',
        text: 'It is there, its state is available, and restorable is yes. Where it can be verified, verify it.',
        calls: (subject) => [...subject.own('list-snapshots', { limit: 3 }), ...subject.own('verify-snapshot')],
      },
      {
        title: 'Write down the way back',
        text: 'Before the change, while there is time to read it.',
        calls: (subject) => [subject.about('find-recovery-options')],
        show: 'the exact call that goes back, what it would lose, and about how long it takes. Agree on what would make them go back.',
      },
      {
        title: 'Only now the change',
        text: 'Keep the backup until the change has proved itself. Deleting it later is guarded.',
      },
    ],
  },
  'quarterly-drill': {
    ask: (subject, { snapshot_id }) =>
      `Run a restore drill for ${subject}${snapshot_id === undefined ? '' : ` from the snapshot ${snapshot_id}`}, step by step as below. The live database must not be touched.`,
    aim: 'A backup that was never restored is a hope. Restore the newest point into something new, check it, measure, and remove it again.',
    stages: ({ snapshot_id }) => [
      {
        title: 'Know what was promised',
        text: 'The drill measures against it.',
        calls: (subject) => [subject.objectives(), ...subject.own('get-backup-info')],
      },
      {
        title: 'Choose the point',
        text:
          snapshot_id === undefined
            ? 'Take the option with the newest moment whose risk is create. Where every option writes into something that exists, no drill is possible here: stop, and report that.'
            : 'Take the option that restores this snapshot with the risk create. Where there is none, stop, and report that.',
        calls: (subject) => [
          subject.about('find-recovery-options'),
          ...(snapshot_id === undefined ? [] : subject.own('describe-snapshot')),
        ],
      },
      planning(
        'Stop unless its risk is create and its target is a new name, with drill in it where a name can be chosen.',
      ),
      {
        title: 'Restore into the new resource',
        text: 'Note the time in UTC, then make the call of the option. Where it answers with a plan whose risk is more than create, it is about something that exists: stop the drill.',
      },
      WAITING,
      {
        title: 'Check the copy',
        text: 'The operation succeeded, its result says usable, and the data is right: row counts, the newest record, a query that the application lives by. The person, or the application, looks into the copy.',
        calls: (subject) => (subject.find('verify-snapshot') === undefined ? [] : subject.own('verify-snapshot')),
        show: 'what was checked, with figures.',
      },
      {
        title: 'Measure',
        text: 'Time to restore: started_at to ended_at of the operation, and the checking. Data that a real loss would have cost: from the moment of the point to the beginning of the drill.',
        calls: () => [{ action: 'get-operation', input: { operation_id: OPERATION } }],
      },
      {
        title: 'Delete the copy',
        text: 'It costs money and is a second place with the same data. What Holdfast can delete it deletes, guarded; anything else the person deletes at the provider. Check the name twice: it is the copy, not the source.',
        calls: (subject) => {
          const removals = subject.removals();
          return removals.length > 0 ? removals : ['Holdfast has no action that deletes a restored database here.'];
        },
      },
      {
        title: 'Report',
        text: 'One table: database, point and its age, time to restore, promised and measured, checks, what went wrong, what to change, when the next drill is due.',
      },
    ],
  },
  'backup-review': {
    ask: (subject) =>
      `Review the backups of ${subject} and tell me what to fix, step by step as below. Change nothing yet.`,
    aim: 'Find what would hurt on the day of a loss, and fix the worst first.',
    stages: ({ entity }) => [
      {
        title: 'List what there is',
        text: 'Ask what is missing from the list: a database that nobody configured is not backed up by anyone here.',
        calls: () => [{ action: 'list-databases', input: {} }],
      },
      {
        title: 'Look at each',
        text: entity === undefined ? 'One call for each database.' : 'What it has, and its warnings.',
        calls: (subject) => subject.own('get-backup-info'),
      },
      {
        title: 'Hold the settings against the file',
        text: 'What differs was changed outside, or never applied.',
        calls: (subject) =>
          entity === undefined ? [{ action: 'check-settings', input: {} }] : subject.settings('check-settings'),
      },
      {
        title: 'Look for failures and for ways back',
        text: 'A failed backup that nobody saw; a database without any option to recover.',
        calls: (subject) => [
          entity === undefined
            ? { action: 'list-operations', input: FAILED }
            : subject.about('list-operations', FAILED),
          subject.about('find-recovery-options'),
        ],
      },
      {
        title: 'Say what to fix, worst first',
        text: [
          '1. No restorable backup, or the newest is older than its objective.',
          '2. Backups fail, or nobody ever restored one: a drill is due.',
          '3. Point-in-time recovery is off, or its window is shorter than it takes to notice a loss.',
          '4. Retention below what was promised or demanded.',
          '5. Not encrypted, deletion protection off, or the only copy in the same account and region.',
          '6. Settings that differ from the file.',
        ].join('\n'),
        show: 'a table: database, finding, how bad, the exact call that fixes it.',
      },
      {
        title: 'Fix what the person chose',
        text: 'What raises protection runs at once; what lowers it waits for a person.',
        calls: (subject) => [
          ...subject.settings('apply-settings', { settings: ['<setting>'] }),
          ...subject.own('create-snapshot'),
        ],
      },
    ],
  },
};
