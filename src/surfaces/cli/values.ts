import { readFile } from 'node:fs/promises';
import type { AnyAction } from '../../core/action.ts';
import { HoldfastError } from '../../core/errors.ts';
import { isObject, type JsonObject, type JsonValue } from '../../core/json.ts';
import { cleanText } from '../../core/text.ts';
import { type Parameter, parametersOf, typeText, type ValueShape } from '../parameters.ts';

/** Where `key=@file` and `key=-` get their text. */
export interface ValueSources {
  readFile(path: string): Promise<string>;
  readInput(): Promise<string>;
}

const FILE_LIMIT = 1024 * 1024;

/** Reads a file that a parameter names. */
export async function readValueFile(path: string): Promise<string> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw new HoldfastError('INVALID_PARAMETER', `cannot read the file '${cleanText(path)}'`, {
      cause,
      hint: 'Check the path. A value that begins with @ itself is written @@.',
    });
  }
  if (text.length > FILE_LIMIT) {
    throw new HoldfastError('INVALID_PARAMETER', `the file '${cleanText(path)}' is larger than a parameter may be`);
  }
  return text;
}

/**
 * Reads `key=value` words into the input of an action, each value by the type that the action's schema gives it.
 * What the action does not know stays text: the engine refuses it as it does for every caller.
 * @throws {HoldfastError} INVALID_PARAMETER for a word without `=`, a repeated key, a value of another type
 */
export async function readInput(
  action: AnyAction,
  words: readonly string[],
  sources: ValueSources,
): Promise<JsonObject> {
  const parameters = new Map(parametersOf(action).map((parameter) => [parameter.name, parameter]));
  const given = new Map<Parameter, string[]>();
  const input: JsonObject = {};
  for (const word of words) {
    const [key, text] = splitPair(word);
    const parameter = parameters.get(key);
    if (parameter === undefined) {
      if (key === 'confirmation_token') throw misplacedToken();
      if (!/^[a-z]\w*$/i.test(key)) {
        throw new HoldfastError('INVALID_PARAMETER', `${action.name} has no parameter '${cleanText(key, 60)}'`);
      }
      input[key] = text;
    } else given.set(parameter, [...(given.get(parameter) ?? []), text]);
  }
  let inputTaken = false;
  for (const [parameter, texts] of given) {
    const { name, shape } = parameter;
    if (texts.length > 1 && !shape.types.has('array')) {
      throw new HoldfastError('INVALID_PARAMETER', `${name} is given ${texts.length} times and takes one value`);
    }
    const values: JsonValue[] = [];
    for (const text of texts) {
      const isInput = text === '-' || text === '@-';
      if (isInput && inputTaken) {
        throw new HoldfastError('INVALID_PARAMETER', 'standard input can be read for one parameter only');
      }
      inputTaken ||= isInput;
      values.push(readValue(parameter, await fetchText(text, isInput, sources)));
    }
    input[name] = values.length > 1 ? values.flat() : values[0];
  }
  return input;
}

function splitPair(word: string): [string, string] {
  const at = word.indexOf('=');
  if (at <= 0) {
    throw new HoldfastError('INVALID_PARAMETER', `'${cleanText(word, 60)}' is not key=value`, {
      hint: 'Write parameters as key=value, such as snapshot_id=before-upgrade.',
    });
  }
  return [word.slice(0, at), word.slice(at + 1)];
}

function misplacedToken(): HoldfastError {
  return new HoldfastError('INVALID_PARAMETER', 'the confirmation token is no parameter here', {
    hint: 'Give it as --token, or in the variable HOLDFAST_TOKEN.',
  });
}

async function fetchText(text: string, isInput: boolean, sources: ValueSources): Promise<string> {
  // A file or a pipe ends its only line with a line break that nobody means.
  if (isInput) return (await sources.readInput()).replace(/\r?\n$/, '');
  if (text.startsWith('@@')) return text.slice(1);
  if (text.startsWith('@')) return (await sources.readFile(text.slice(1))).replace(/\r?\n$/, '');
  return text;
}

/**
 * Reads one value by its type. Text stays text wherever the schema takes text.
 * @throws {HoldfastError} INVALID_PARAMETER for a value of another type; never quotes one that may be a secret
 */
export function readValue(parameter: Pick<Parameter, 'name' | 'shape' | 'secret'>, text: string): JsonValue {
  const value = interpret(parameter.shape, text);
  if (value !== undefined) return value;
  const shown = parameter.secret ? '' : `, not '${cleanText(text, 60)}'`;
  throw new HoldfastError('INVALID_PARAMETER', `${parameter.name} takes ${typeText(parameter.shape)}${shown}`, {
    hint: hintFor(parameter.shape, parameter.name),
  });
}

function hintFor(shape: ValueShape, name: string): string {
  if (shape.types.has('object')) return `Write it as JSON, ${name}='{"key": "value"}', or ${name}=@file.json.`;
  if (shape.types.has('array')) return `Write ${name}=one,two, repeat ${name}=…, or give a JSON list.`;
  if (shape.types.has('boolean')) return `Write ${name}=true or ${name}=false.`;
  return 'Correct the value and call again.';
}

function interpret(shape: ValueShape, text: string): JsonValue | undefined {
  const { types } = shape;
  if (types.size === 0) return parseJson(text) ?? text;
  if (types.has('null') && text === 'null') return null;
  if (types.has('array')) {
    const list = interpretList(shape, text);
    if (list !== undefined) return list;
  }
  if (types.has('object') && text.trimStart().startsWith('{')) {
    const value = parseJson(text);
    if (isObject(value)) return value as JsonObject;
  }
  if (types.has('boolean') && !types.has('string')) {
    if (/^(true|yes)$/i.test(text)) return true;
    if (/^(false|no)$/i.test(text)) return false;
  }
  if ((types.has('number') || types.has('integer')) && !types.has('string')) {
    const value = interpretNumber(text, types.has('number'));
    if (value !== undefined) return value;
  }
  return types.has('string') ? text : undefined;
}

function interpretNumber(text: string, fractions: boolean): number | undefined {
  if (!/^[+-]?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(text.trim())) return undefined;
  const value = Number(text);
  // A number that this language cannot hold exactly would be sent as another one.
  if (!Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value))) return undefined;
  return fractions || Number.isInteger(value) ? value : undefined;
}

function interpretList(shape: ValueShape, text: string): JsonValue[] | undefined {
  const item = shape.items;
  if (text.trimStart().startsWith('[')) {
    const value = parseJson(text);
    return Array.isArray(value) ? value : undefined;
  }
  if (shape.types.has('string')) return undefined;
  if (item?.types.has('object') && text.trimStart().startsWith('{')) {
    const value = parseJson(text);
    return value === undefined ? undefined : [value];
  }
  if (text === '') return [];
  const values = text.split(',').map((part) => (item === undefined ? part.trim() : interpret(item, part.trim())));
  return values.includes(undefined) ? undefined : (values as JsonValue[]);
}

function parseJson(text: string): JsonValue | undefined {
  try {
    return JSON.parse(text) as JsonValue;
  } catch {
    return undefined;
  }
}
