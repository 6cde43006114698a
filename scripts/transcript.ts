import { readFileSync, writeFileSync } from 'node:fs';

// Draws the demo's transcript as docs/demo.svg: node scripts/transcript.ts TRANSCRIPT. A block longer than a few lines is cut.

const WIDTH = 118;
const KEEP = 9;
const CHAPTERS = new Set([4, 6, 8, 9, 10, 11]);

const [input] = process.argv.slice(2);
if (input === undefined) throw new Error('name the file with the transcript');
const lines = cut(readFileSync(input, 'utf8').split('\n'));
const height = 24 + lines.length * 18;
const rows = lines.map(
  (line, index) => `<text x="18" y="${30 + index * 18}" class="${kindOf(line)}">${escapeXml(line)}</text>`,
);
writeFileSync(
  new URL('../docs/demo.svg', import.meta.url),
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 980 ${height}" font-family="ui-monospace,Menlo,Consolas,monospace" font-size="13" xml:space="preserve">
<style>rect{fill:#10151c}text{fill:#c9d4e0;white-space:pre}.h{fill:#8fd0ff;font-weight:bold}.c{fill:#ffd27d}.p{fill:#7f8b99}.r{fill:#ff9b8f}.g{fill:#9be29b}</style>
<rect width="980" height="${height}" rx="10"/>
${rows.join('\n')}
</svg>
`,
);

function cut(all: readonly string[]): string[] {
  const kept: string[] = [];
  let wanted = true;
  let block = 0;
  for (const line of all) {
    const chapter = /^(\d+)\. /.exec(line)?.[1];
    if (chapter !== undefined) wanted = CHAPTERS.has(Number(chapter));
    if (line.startsWith('Done in')) wanted = true;
    if (!wanted || (line === '' && kept.at(-1) === '')) continue;
    block = line.startsWith('   |') ? block + 1 : 0;
    if (block === KEEP + 1) kept.push('   | …');
    if (block > KEEP) continue;
    kept.push(line.length > WIDTH ? `${line.slice(0, WIDTH - 1)}…` : line);
  }
  return kept;
}

function kindOf(line: string): string {
  if (/^\d+\. /.test(line)) return 'h';
  if (/^ {3}[>$]/.test(line)) return 'c';
  if (/CONFIRMATION_REQUIRED|CONFIRMATION_USED|Refused|gone/.test(line)) return 'r';
  if (/succeeded|Approved|Whole|Done in/.test(line)) return 'g';
  if (/^ {3}[.(]/.test(line)) return 'p';
  return 't';
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
