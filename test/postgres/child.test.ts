import { describe, expect, it } from 'vitest';
import { startChild } from '../../src/postgres/child.ts';

const env = { PATH: process.env['PATH'] ?? '' };
/** A program that writes this expression and ends. */
const print = (text: string) => startChild(process.execPath, ['-e', `process.stdout.write(${text})`], { env });

async function all(source: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

describe('what a program writes', () => {
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
    const child = startChild(
      process.execPath,
      ['-e', "setInterval(() => process.stdout.write('x'.repeat(65536)), 1)"],
      {
        env,
      },
    );
    await child.stop();
    expect((await child.ended).signal).toBe('SIGTERM');
    await expect(all(child.output())).rejects.toThrow();
  });
});
