import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { Action } from '../src/core/action.ts';
import { toolName } from '../src/surfaces/mcp/tools.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const pages = [
  'README.md',
  'CONTRIBUTING.md',
  'AGENTS.md',
  'SECURITY.md',
  ...readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => join('docs', name)),
];
const read = (page: string): string => readFileSync(join(ROOT, page), 'utf8');

const examples = (): string[] =>
  [...read('docs/adding-a-provider.md').matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1]!);

describe('the documentation', () => {
  it.each(pages)('%s links only to what is there', (page) => {
    const targets = [...read(page).matchAll(/\]\(([^)#]+)(?:#[^)]*)?\)/g)]
      .map((match) => match[1]!)
      .filter((target) => !/^[a-z]+:/.test(target));
    expect(targets.filter((target) => !existsSync(join(ROOT, dirname(page), target)))).toEqual([]);
  });

  it('shows actions as they really are', () => {
    const sources = readdirSync(join(ROOT, 'tools'))
      .map((name) => read(join('tools', name)))
      .join('\n');
    expect(examples().length).toBeGreaterThan(1);
    // What a complete example imports is its own choice of what its file imports.
    const parts = examples().flatMap((block) => block.split('\n\n').filter((part) => !part.startsWith('import ')));
    expect(parts.filter((part) => !sources.includes(part.trimEnd()))).toEqual([]);
  });

  it('shows an action that is complete: it compiles, and is a tool, a command and a section of the reference', async () => {
    const complete = examples().filter((block) => block.startsWith('import '));
    expect(complete.length).toBeGreaterThan(0);
    // One folder below the root, as tools/ is.
    const folder = mkdtempSync(join(ROOT, '.example-'));
    try {
      for (const [index, block] of complete.entries()) writeFileSync(join(folder, `example-${index}.ts`), block);
      writeFileSync(join(folder, 'tsconfig.json'), '{ "extends": "../tsconfig.json", "include": ["*.ts"] }\n');
      execFileSync(join(ROOT, 'node_modules', '.bin', 'tsc'), ['-p', folder], { encoding: 'utf8' });
      const file = pathToFileURL(join(folder, 'example-0.ts')).href;
      const [action] = Object.values((await import(file)) as Record<string, Action>);
      expect(action).toMatchObject({ kind: 'provider' });
      const { name, provider } = action!;
      const tool = toolName(action!);
      expect(read('test/golden/tools.json')).toContain(`{"name":"${tool}"`);
      expect(read('docs/actions.md')).toContain(`### ${tool}\n`);
      expect(read('docs/actions.md')).toContain(`holdfast do sandbox/${provider.id}/${name}`);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('names only npm scripts that exist', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    const named = pages.flatMap((page) => [...read(page).matchAll(/npm run ([a-z:-]+)/g)].map((match) => match[1]!));
    expect(named.length).toBeGreaterThan(0);
    expect(named.filter((name) => scripts[name] === undefined)).toEqual([]);
  });
});
