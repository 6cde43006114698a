import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import type { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject, JsonValue } from '../../src/core/json.ts';
import { parseInput } from '../../src/engine/input.ts';
import { readInput, readValueFile } from '../../src/surfaces/cli/values.ts';
import { commandLine, exampleLine, shellWord, valueText } from '../../src/surfaces/command-line.ts';
import { parametersOf, typeText } from '../../src/surfaces/parameters.ts';
import { registry } from './cli-support.ts';

const create = registry.actions.find((action) => action.name === 'create-snapshot')!;
const sources = {
  readFile: async (path: string) => `contents of ${path}\n`,
  readInput: async () => 'piped\n',
};

function read(...words: string[]): Promise<JsonObject> {
  return readInput(create, words, sources);
}

/** What refuses words: the command line, or the engine that it hands them to. */
async function refusal(...words: string[]): Promise<HoldfastError> {
  return read(...words)
    .then((input) => parseInput(create, { snapshot_id: 'a', ...input }))
    .then(
      () => expect.fail(`${words.join(' ')} was accepted`),
      (cause: HoldfastError) => cause,
    );
}

describe('key=value', () => {
  it.each<[string[], JsonObject]>([
    [['snapshot_id=a'], { snapshot_id: 'a' }],
    [['snapshot_id='], { snapshot_id: '' }],
    [['snapshot_id=a=b'], { snapshot_id: 'a=b' }],
    [['snapshot_id=20'], { snapshot_id: '20' }],
    [['snapshot_id=true'], { snapshot_id: 'true' }],
    [['snapshot_id={"a":1}'], { snapshot_id: '{"a":1}' }],
    [['size=1.5'], { size: 1.5 }],
    [['size=-2e3'], { size: -2000 }],
    [['copies=3'], { copies: 3 }],
    [['encrypted=true'], { encrypted: true }],
    [['encrypted=No'], { encrypted: false }],
    [['tables=a,b'], { tables: ['a', 'b'] }],
    [['tables=a, b'], { tables: ['a', 'b'] }],
    [['tables=a', 'tables=b,c'], { tables: ['a', 'b', 'c'] }],
    [['tables=["a,b","c"]'], { tables: ['a,b', 'c'] }],
    [['tables=["a"]', 'tables=b'], { tables: ['a', 'b'] }],
    [['tables='], { tables: [] }],
    [['ports=1,2'], { ports: [1, 2] }],
    [['tags={"a":"b, c"}'], { tags: { a: 'b, c' } }],
    [['rules={"name":"x, y"}', 'rules={"name":"z"}'], { rules: [{ name: 'x, y' }, { name: 'z' }] }],
    [['mode=incr'], { mode: 'incr' }],
    [['restore_timestamp=1702636200'], { restore_timestamp: '1702636200' }],
    [['restore_timestamp=2026-11-20T10:00:00Z'], { restore_timestamp: '2026-11-20T10:00:00Z' }],
    [['retention_days=null'], { retention_days: null }],
    [['retention_days=7'], { retention_days: 7 }],
    [['snapshot_id=@name.txt'], { snapshot_id: 'contents of name.txt' }],
    [['snapshot_id=@@name'], { snapshot_id: '@name' }],
    [['snapshot_id=-'], { snapshot_id: 'piped' }],
    [['snapshot_id=@-'], { snapshot_id: 'piped' }],
    [['tables=-', 'tables=b'], { tables: ['piped', 'b'] }],
  ])('reads %j as %j', async (words, input) => {
    expect(await read(...words)).toEqual(input);
  });

  it.each<[string[], RegExp]>([
    [['size=big'], /size takes number, not 'big'/],
    [['size='], /size takes number/],
    [['size=0x10'], /size takes number/],
    [['size=Infinity'], /size takes number/],
    [['copies=1.5'], /copies takes integer, not '1.5'/],
    [['copies=12345678901234567890'], /copies takes integer/],
    [['encrypted=flase'], /encrypted takes boolean, not 'flase'/],
    [['encrypted=1'], /encrypted takes boolean/],
    [['ports=1,x'], /ports takes list of integer/],
    [['tags=a'], /tags takes object/],
    [['tags={"a":'], /tags takes object/],
    [['tags=[1]'], /tags takes object/],
    [['tables=["a"'], /tables takes list of string/],
    [['copies=1', 'copies=2'], /copies is given 2 times/],
    [['snapshot_id'], /'snapshot_id' is not key=value/],
    [['=a'], /'=a' is not key=value/],
    [['snapshot_id=-', 'tables=-'], /standard input can be read for one parameter only/],
    [['__proto__=a'], /no parameter '__proto__'/],
    [['constructor=a'], /no parameter 'constructor'/],
  ])('refuses %j', async (words, message) => {
    const error = await refusal(...words);
    expect(error.code).toBe('INVALID_PARAMETER');
    expect(error.message).toMatch(message);
  });

  it('says what an unknown key may have meant', async () => {
    const error = await refusal('snapshotid=a');
    expect(error.message).toBe("create-snapshot has no parameter 'snapshotid'");
    expect(error.hint).toBe('Did you mean snapshot_id?');
  });

  it('says where the confirmation token goes', async () => {
    expect((await refusal('confirmation_token=hfc_x')).hint).toContain('--token');
  });

  it('reads a real file without its last line break and says which one it cannot read', async () => {
    const path = join(mkdtempSync(join(tmpdir(), 'holdfast-cli-')), 'value');
    writeFileSync(path, '{"a": "b"}\r\n');
    const files = { ...sources, readFile: readValueFile };
    expect(await readInput(create, [`tags=@${path}`], files)).toEqual({ tags: { a: 'b' } });
    await expect(readInput(create, [`tags=@${path}.absent`], files)).rejects.toThrow(/cannot read the file/);
  });

  it('refuses a file that is larger than a parameter may be', async () => {
    const path = join(mkdtempSync(join(tmpdir(), 'holdfast-cli-')), 'value');
    writeFileSync(path, 'x'.repeat(1024 * 1024 + 1));
    await expect(readValueFile(path)).rejects.toThrow(/larger/);
  });

  it('never repeats the value of a parameter that may hold a secret', async () => {
    const action = { ...create, input: z.strictObject({ pin: z.number().meta({ secret: true }) }) };
    const error = await readInput(action, ['pin=hunter2'], sources).catch((cause: HoldfastError) => cause);
    expect(JSON.stringify(error)).not.toContain('hunter2');
    expect((error as HoldfastError).message).toBe('pin takes number');
  });
});

describe('a call written as a command line', () => {
  // Small seeded generator: the same values at every run.
  function* numbers(seed: number): Generator<number, never> {
    let state = seed;
    for (;;) {
      state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
      yield state;
    }
  }
  const next = numbers(7);
  const pick = (below: number): number => next.next().value % below;
  const letters = [
    'a',
    'Z',
    '0',
    ' ',
    ',',
    '"',
    "'",
    '\\',
    '[',
    '{',
    '}',
    '=',
    '@',
    '-',
    '$',
    '`',
    '!',
    'é',
    '\n',
    '#',
  ];
  const text = (): string => Array.from({ length: 1 + pick(6) }, () => letters[pick(letters.length)]).join('');
  const makers: Record<string, () => JsonValue> = {
    snapshot_id: text,
    size: () => (pick(2000) - 1000) / 8,
    copies: () => pick(1000) - 500,
    encrypted: () => pick(2) === 0,
    tables: () => Array.from({ length: pick(4) }, text),
    ports: () => Array.from({ length: pick(4) }, () => pick(65_536)),
    tags: () => Object.fromEntries(Array.from({ length: pick(3) }, () => [text(), text()])),
    rules: () => Array.from({ length: pick(3) }, () => ({ name: text() })),
    retention_days: () => (pick(2) === 0 ? null : pick(30)),
  };

  it('is read back as the same call', async () => {
    for (let round = 0; round < 400; round += 1) {
      const chosen = Object.entries(makers).filter(() => pick(2) === 0);
      const input = Object.fromEntries(chosen.map(([key, make]) => [key, make()]));
      // A lone dash means standard input; there is no way to write it.
      if (input['snapshot_id'] === '-') continue;
      const words = Object.entries(input).map(([key, value]) => `${key}=${valueText(value)}`);
      expect(await readInput(create, words, sources), words.join(' ')).toEqual(input);
    }
  });

  it('is quoted for a shell only where it needs to be', () => {
    expect(shellWord('a=b/c:d,e')).toBe('a=b/c:d,e');
    expect(shellWord("it's $HOME")).toBe(`'it'\\''s $HOME'`);
    expect(shellWord('')).toBe("''");
  });

  it('names path, parameters and program', () => {
    const call = { entity: 'a/b', action: 'restore', input: { id: 'x y', deep: { a: 1 }, absent: undefined } };
    expect(commandLine(call)).toBe(`holdfast do a/b/restore 'id=x y' 'deep={"a":1}'`);
    expect(commandLine({ action: 'assess', input: {} }, 'holdfast --sandbox')).toBe('holdfast --sandbox do assess');
    expect(commandLine({ action: 'wait-operation', input: { operation_id: 'op_1' } })).toBe(
      'holdfast operations op_1 --wait',
    );
  });
});

describe('the example of an action', () => {
  it('names words to replace', () => {
    const restore = registry.actions.find((action) => action.name === 'restore')!;
    expect(exampleLine(restore, 'a/b')).toBe('holdfast do a/b/restore snapshot_id=SNAPSHOT_ID');
    const example = { entity: '$entity', operation: '$operation', limit: 3 };
    expect(exampleLine({ ...registry.fleet[0]!, name: 'x', example }, 'a/b')).toBe(
      'holdfast do x entity=a/b operation=OPERATION_ID limit=3',
    );
  });
});

describe('the type of a parameter', () => {
  it('is named for a person', () => {
    const types = Object.fromEntries(parametersOf(create).map(({ name, shape }) => [name, typeText(shape)]));
    expect(types).toMatchObject({
      snapshot_id: 'string',
      copies: 'integer',
      tables: 'list of string',
      tags: 'object',
      mode: 'full | incr',
      restore_timestamp: 'string or integer',
      retention_days: 'integer',
    });
  });

  it('keeps what the schema says beside it', () => {
    const parameters = parametersOf(create);
    expect(parameters.find(({ name }) => name === 'copies')).toMatchObject({ fallback: 1, required: false });
    expect(parameters.find(({ name }) => name === 'source_uri')).toMatchObject({ secret: true });
    expect(parameters.find(({ name }) => name === 'snapshot_id')).toMatchObject({
      description: 'Name of the snapshot',
    });
  });
});
