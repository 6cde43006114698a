import { load } from 'js-yaml';
import { describe, expect, it } from 'vitest';
import { parseSource } from '../../src/config/source.ts';
import { yamlText } from '../../src/config/yaml-text.ts';

const values = (text: string): unknown[] => parseSource(text, 'f').documents.map(({ value }) => value);
const told = (text: string): string[] =>
  parseSource(text, 'f').faults.map(({ line, column, message }) => `${line}:${column} ${message}`);

describe('a value', () => {
  it.each<[string, unknown]>([
    ['03:00', '03:00'],
    ['12:30:45', '12:30:45'],
    ['2026-01-01', '2026-01-01'],
    ['yes', 'yes'],
    ['off', 'off'],
    ['1_000', '1_000'],
    ['0b11', '0b11'],
    ['017', 17],
    ['0o17', 15],
    ['0x1F', 31],
    ['9007199254740993', 9007199254740992],
    ['1e3', 1000],
    ['.5', 0.5],
    ['-.inf', Number.NEGATIVE_INFINITY],
    ['~', null],
    ['Null', null],
    ['', null],
    ['TRUE', true],
    ['"true"', 'true'],
    ['!!str 5', '5'],
    ['! 5', '5'],
    ['!<tag:yaml.org,2002:int> "7"', 7],
    ['!!null ""', null],
    ["'it''s'", "it's"],
    ['"\\u0041\\t"', 'A\t'],
    ['x#y # no', 'x#y'],
    ['[a: 1, b]', [{ a: 1 }, 'b']],
    ['{x, y: 1}', { x: null, y: 1 }],
    ['|+\n  x\n\n', 'x\n\n'],
    ['>-\n  x\n  y', 'x y'],
  ])('written %j is what YAML 1.2 says', (written, value) => {
    expect(values(`a: ${written}`)).toEqual([{ a: value }]);
    expect(told(`a: ${written}`)).toEqual([]);
  });

  it('takes keys as text, without reaching the prototype', () => {
    expect(values('1: a\n~: b\ntrue: c\n__proto__: { d: 1 }')).toEqual([
      Object.fromEntries([
        ['1', 'a'],
        ['', 'b'],
        ['true', 'c'],
        ['__proto__', { d: 1 }],
      ]),
    ]);
  });

  it('merges what the mapping does not say itself, in either order, of one mapping or several', () => {
    expect(
      values('x: &x { a: 1, b: 1 }\ny: &y { b: 2, c: 2 }\np: { <<: *x, b: 0 }\nq: { b: 0, <<: [*x, *y] }')[0],
    ).toMatchObject({ p: { a: 1, b: 0 }, q: { a: 1, b: 0, c: 2 } });
    expect(values('p: { "<<": 1 }')).toEqual([{ p: { '<<': 1 } }]);
    expect(told('p:\n  <<: 5')).toEqual(['2:7 what << merges is no mapping']);
  });
});

describe('documents', () => {
  it('stand for themselves, whatever markers, comments and directives are between them', () => {
    expect(values('# c\n--- # d\na: 1\n...\n%YAML 1.2\n# e\n---\nb: 2\n--- |\n  ---\n')).toEqual([
      { a: 1 },
      { b: 2 },
      '---\n',
    ]);
    expect(values('\ufeffa: 1\r\n---\r\nb: 2\r\n')).toEqual([{ a: 1 }, { b: 2 }]);
    expect(told('a: 1\n... x\n')).toHaveLength(1);
  });

  it('have their own anchors', () => {
    expect(told('a: &x 1\n---\nb: *x')).toEqual(['3:4 an alias without its anchor']);
  });

  it('have their own faults', () => {
    expect(told('a: [1\n---\nb: "x\n---\nc: 1\nc: 2\n---\nd: @x')).toEqual([
      '2:1 indentation that does not fit, or a quote or bracket that is not closed',
      '4:1 indentation that does not fit, or a quote or bracket that is not closed',
      '6:1 a key that stands twice in one mapping',
      '8:4 a value that cannot begin like this',
    ]);
  });
});

describe('a fault of syntax', () => {
  it.each([
    ['a: b: c', '1:5 a second colon in one line'],
    ['a: 1\n  b: 2', '2:3 indentation that does not fit, or a quote or bracket that is not closed'],
    ['a: 1\nfoo\nb: 2', '2:1 a key without its value'],
    ['foo\nbar: 1', '2:1 a key without its value'],
    ['a: "\\q"', '1:6 an escape that is not known in double quotes'],
    ['a: x\n\tb: 1', '2:1 a tab in the indentation'],
    ['a: &', '1:5 a value that cannot begin like this'],
    ['a: !foo { b: 1 }', '1:4 a YAML tag that is not known here'],
    ['a: !!timestamp 2026-01-01', '1:4 a YAML tag that is not known here'],
    ['a: !x!y 1', '1:8 a YAML tag that is not known here'],
    ['a: "x\u0080"', '1:6 a control character'],
    ['a: \ud800', '1:4 a control character'],
    ['%YAML 2.0\n---\na: 1', '2:1 a YAML directive that is not known'],
    ['%YAML 1.2\n%FOO\n---\na: 1', '2:1 a YAML directive that is not known'],
    ['a: *b c', '1:7 indentation that does not fit, or a quote or bracket that is not closed'],
    ['*a : 1', '1:1 an alias without its anchor'],
    ['a: &a x\n*a : 1', '2:1 a key that is no plain word'],
    [`a: ${'['.repeat(200)}`, '1:103 the YAML is nested too deeply to be read'],
    ['\u0000a: b', '1:1 a control character'],
  ])('is told of %j', (text, fault) => {
    expect(told(text)).toEqual([fault]);
  });

  it('is told twenty times of one document at most', () => {
    expect(told('a: 1\n'.repeat(100))).toHaveLength(20);
  });

  it('is one where aliases repeat more than a file may hold', () => {
    const long = `a: &a ${'x'.repeat(1000)}\nb: [`;
    expect(told(`${long}${Array(1000).fill('*a').join(', ')}]`)).toEqual([]);
    expect(told(`${long}${Array(1100).fill('*a').join(', ')}]`)).toEqual(['2:4193 aliases that expand too far']);
  });
});

describe('the place', () => {
  const [document] = parseSource(
    [
      'one: { two: "x", "three": \'y\' }',
      'list:',
      '  - a',
      '  - b: 1',
      '    c:',
      'text: |  # why',
      '  line',
      'some-key: ""',
      'base: &base { deep: 1 }',
      'copy: *base',
    ].join('\n'),
    'f',
  ).documents;
  const at = (path: string, onKey = false): string => {
    const { line, column } = document!.at(path === '' ? [] : path.split('.'), onKey);
    return `${line}:${column}`;
  };

  it.each([
    ['', '1:1'],
    ['one', '1:6'],
    ['one.two', '1:13'],
    ['one.three', '1:27'],
    ['list', '3:3'],
    ['list.0', '3:5'],
    ['list.1.b', '4:8'],
    ['text', '6:7'],
    ['copy', '10:7'],
    ['copy.deep', '9:21'],
  ])('of %s is where its value begins', (path, place) => {
    expect(at(path)).toBe(place);
  });

  it.each([
    ['one.two', '1:8'],
    ['one.three', '1:18'],
    ['some_key', '8:1'],
    ['list.0', '3:5'],
  ])('of the key %s is where the key begins', (path, place) => {
    expect(at(path, true)).toBe(place);
  });

  it.each([
    ['list.1.c', '5:5', 'its key'],
    ['some_key', '8:1', 'its key'],
    ['one.gone', '1:1', 'the key of what should have it'],
    ['list.7', '2:1', 'the key of what should have it'],
    ['list.1.gone.more', '4:5', 'what should have it'],
    ['gone', '1:1', 'the document'],
  ])('of %s, where nothing stands, is %s: %s', (path, place) => {
    expect(at(path)).toBe(place);
  });
});

describe('YAML that is written', () => {
  it.each(['03:00', 'yes', 'No', 'on', 'off', '1_000', '2026-01-01', '12:30:45', '017', 'null', '1.5', ''])(
    'puts %j in quotes, for other readers too',
    (value) => {
      expect(yamlText({ a: value })).toBe(`a: ${JSON.stringify(value)}\n`);
    },
  );

  it('reads as what it was, also with more written below it', () => {
    const value = {
      a: 'x\n\n',
      b: '\n',
      c: 'x\ny\n',
      d: '---\n',
      e: '# no',
      f: '*x &y',
      g: '"q" \'s\'',
      h: [{ i: [] }],
    };
    expect(load(`${yamlText({ value })}\n# below\n${yamlText({ more: 1 })}`)).toEqual({ value, more: 1 });
    expect(values(yamlText(value))).toEqual([value]);
  });
});
