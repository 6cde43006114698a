import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { describe, expect, it } from 'vitest';
import { startChild } from '../../src/postgres/child.ts';
import { borrowPiece, givePieceBack, PIECE } from '../../src/postgres/flow.ts';
import { openPipe } from '../../src/postgres/pipe.ts';

const ENDLESS = "setInterval(() => process.stdout.write('x'.repeat(65536)), 1)";
const env = { PATH: process.env['PATH'] ?? '' };

async function all(source: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

describe.each([
  { how: 'as a stream', pieces: false },
  { how: 'in pieces of borrowed memory', pieces: true },
])('what a program writes, $how', ({ pieces }) => {
  /** A program that runs this text. */
  const run = (text: string) => startChild(process.execPath, ['-e', text], { env, pieces });
  /** A program that writes this expression and ends. */
  const print = (text: string) => run(`process.stdout.write(${text})`);

  it('is there for a reader that comes after the program has ended', async () => {
    const child = print("'a small dump'");
    expect(await child.ended).toEqual({ code: 0, signal: null });
    expect(await all(child.output())).toBe('a small dump');
  });

  it('is whole where it is more than pipes hold', async () => {
    const child = print("'x'.repeat(3_000_000)");
    const output = await all(child.output());
    expect(output.length).toBe(3_000_000);
    expect(await child.ended).toEqual({ code: 0, signal: null });
  });

  it('does not keep a program that is stopped', async () => {
    const child = run(ENDLESS);
    await child.stop();
    expect((await child.ended).signal).toBe('SIGTERM');
    await expect(all(child.output())).rejects.toThrow();
  });

  it('ends the program when its reader has had enough', async () => {
    const child = run(ENDLESS);
    for await (const chunk of child.output()) {
      expect(chunk.length).toBeGreaterThan(0);
      break;
    }
    expect((await child.ended).signal).toBe('SIGTERM');
  });

  it('is not taken for whole when the program fails or is killed', async () => {
    const failing = run("process.stdout.write('half of it', () => process.exit(3))");
    await expect(all(failing.output())).rejects.toMatchObject({ name: 'HoldfastError' });
    const killed = run(ENDLESS);
    process.kill(killed.pid, 'SIGKILL');
    await expect(all(killed.output())).rejects.toMatchObject({ name: 'HoldfastError' });
  });

  it('says that a program is not there', async () => {
    const child = startChild('/nowhere/pg_dump', [], { env, pieces });
    await expect(all(child.output())).rejects.toMatchObject({ code: 'NOT_SUPPORTED' });
  });
});

describe('pieces', () => {
  const count = 6 * PIECE + 12_345;
  const digits = `Array.from({ length: ${count / 3} }, (_, i) => String((3 * i) % 997).padStart(3, '0')).join('')`;
  const text = `process.stdout.write(${digits})`;
  const expected = Array.from({ length: count / 3 }, (_, i) => String((3 * i) % 997).padStart(3, '0')).join('');

  it('are whole but for the last, and wait for a slow reader, who may keep them', async () => {
    const sizes: number[] = [];
    const kept: Buffer[] = [];
    for await (const piece of startChild(process.execPath, ['-e', text], { env, pieces: true }).output()) {
      sizes.push(piece.length);
      kept.push(piece);
      for (let turns = 50; turns > 0; turns -= 1) await new Promise(setImmediate);
    }
    expect(sizes).toEqual([...Array(6).fill(PIECE), 12_345]);
    expect(Buffer.concat(kept).toString()).toBe(expected);
  });

  it('are used again once they are given back, and by one only', async () => {
    const taken = borrowPiece();
    givePieceBack(taken);
    givePieceBack(taken);
    const next = borrowPiece();
    expect(next.buffer).toBe(taken.buffer);
    expect(borrowPiece().buffer).not.toBe(next.buffer);
    const foreign = Buffer.alloc(PIECE);
    givePieceBack(foreign);
    expect(borrowPiece().buffer).not.toBe(foreign.buffer);
  });

  it('give the same where the system has no named pipes', async () => {
    const path = process.env['PATH'];
    process.env['PATH'] = '/nowhere';
    try {
      expect(openPipe()).toBeUndefined();
      const child = startChild(process.execPath, ['-e', text], { env, pieces: true });
      expect(await all(child.output())).toBe(expected);
    } finally {
      process.env['PATH'] = path;
    }
  });

  it('leave nothing behind where pipes have their names', async () => {
    const names = async () => (await readdir(tmpdir())).filter((name) => name.startsWith('hf-pipe-'));
    const before = new Set(await names());
    await all(startChild(process.execPath, ['-e', "console.log('x')"], { env, pieces: true }).output());
    expect((await names()).filter((name) => !before.has(name))).toEqual([]);
  });
});
