import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly license?: unknown;
  readonly author?: unknown;
}

/** Collects the licences of the packages that the given files come from; paths are from the top of the checkout. */
export function noticesFor(root: string, files: readonly string[]): { text: string; packages: number } {
  const folders = new Set(files.map(packageFolder).filter((folder) => folder !== undefined));
  const sections = [...folders]
    .map((folder) => section(join(root, folder)))
    .sort((a, b) => a.title.localeCompare(b.title, 'en'));
  const unique = [...new Map(sections.map((each) => [each.title, each])).values()];
  const rule = '-'.repeat(78);
  const head = `Holdfast contains the following packages, each under its own licence.\n`;
  const text = [head, ...unique.map(({ title, body }) => `${rule}\n${title}\n\n${body}\n`)].join('\n');
  return { text, packages: unique.length };
}

/** `node_modules/a/node_modules/@b/c/d.js` lies in `node_modules/a/node_modules/@b/c`. */
function packageFolder(path: string): string | undefined {
  return /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(path)?.[0];
}

function section(folder: string): { title: string; body: string } {
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Manifest;
  const licence = typeof manifest.license === 'string' ? manifest.license : 'see the text below';
  const texts = readdirSync(folder)
    .filter((name) => /^(?:licen[cs]e|copying|notice)(?:[.-].*)?$/i.test(name))
    .sort()
    .map((name) => readFileSync(join(folder, name), 'utf8').replace(/\r\n/g, '\n').trim());
  if (texts.length === 0) {
    if (typeof manifest.license !== 'string')
      throw new Error(`${manifest.name} names no licence: it cannot be shipped`);
    texts.push(`The package carries no licence text; it declares ${manifest.license}${by(manifest.author)}.`);
  }
  return { title: `${manifest.name} ${manifest.version} (${licence})`, body: texts.join('\n\n') };
}

function by(author: unknown): string {
  const name = typeof author === 'object' && author !== null && 'name' in author ? author.name : author;
  return typeof name === 'string' && name !== '' ? `, author ${name.replace(/\s*<[^>]*>/, '')}` : '';
}
