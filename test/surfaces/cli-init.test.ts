import { describe, expect, it } from 'vitest';
import type { InitOptions, InitReport } from '../../src/surfaces/cli/deps.ts';
import { run, SAMPLE_INIT } from './cli-support.ts';

const NOTHING: InitReport = { ...SAMPLE_INIT, outcome: 'nothing', entities: [], variables: [], text: undefined };
const looked = SAMPLE_INIT.providers[0]!;

async function init(report: InitReport, args: readonly string[] = []) {
  const asked: InitOptions[] = [];
  const deps = {
    init: async (options: InitOptions): Promise<InitReport> => {
      asked.push(options);
      options.onProgress({ message: 'looking at Test SQL', percent: 50 });
      return report;
    },
  };
  return { ...(await run(['init', ...args], { terminal: true, deps, env: { NO_COLOR: '1' } })), asked: asked[0] };
}

describe('init', () => {
  it('says what it saw, what it wrote and what comes next', async () => {
    const { status, out, err } = await init(SAMPLE_INIT);
    expect(status).toBe(0);
    expect(out).toBe(`Test SQL: account acme: 2 found
  region b refused

my-app/orders test/sql: new
  not protected
my-app/my-db test/sql: in the file already

Written: /work/holdfast.yaml
It refers to: TEST_TOKEN
`);
    expect(err).toContain('looking at Test SQL');
    expect(err).toContain('Next: look at the file, then: holdfast check');
  });

  it('hands on what it was asked for', async () => {
    const { asked } = await init(SAMPLE_INIT, [
      ...['--provider', 'aws-rds', '--provider', 'neon', '--set', 'region=eu-west-1', '--set', 'neon.api_key=${env:K}'],
      ...['--namespace', 'shop', '--append', '--config', 'ops/holdfast.yaml', '--sandbox-port', '9400'],
    ]);
    expect(asked).toMatchObject({
      providers: ['aws-rds', 'neon'],
      settings: ['region=eu-west-1', 'neon.api_key=${env:K}'],
      namespace: 'shop',
      append: true,
      force: false,
      config: 'ops/holdfast.yaml',
      sandbox: true,
      sandboxPort: 9400,
      principal: { id: 'cli:ana' },
    });
  });

  it('leaves a file that is there, and prints what is new', async () => {
    const { status, out } = await init({ ...SAMPLE_INIT, outcome: 'shown' });
    expect(status).toBe(0);
    expect(out).toContain('orders:\n  defines: test/sql\n');
    expect(out).toContain('is there and was left as it is. --append adds what stands above');
  });

  it('says where it would have looked for credentials when it found none', async () => {
    const { status, out } = await init({
      ...NOTHING,
      providers: [{ ...looked, state: 'no_credentials', found: 0, problems: [] }],
    });
    expect(status).toBe(26);
    expect(out).toBe(`Test SQL: no credentials were found
  1. TEST_TOKEN

Nothing was found, and nothing was written.
`);
  });

  it.each<[number, Partial<InitReport['providers'][number]>]>([
    [29, { state: 'failed', code: 'PROVIDER_UNAVAILABLE', problems: ['PROVIDER_UNAVAILABLE: nobody answers'] }],
    [0, { state: 'looked' }],
    [26, { state: 'not_possible' }],
  ])('exits with %i when it found nothing and %j', async (expected, more) => {
    const { status } = await init({ ...NOTHING, providers: [{ ...looked, ...more }] });
    expect(status).toBe(expected);
  });

  it('says that nothing is new', async () => {
    const { status, out } = await init({ ...NOTHING, entities: SAMPLE_INIT.entities.slice(1) });
    expect(status).toBe(0);
    expect(out).toContain('Nothing is new, and nothing was written.');
  });

  it('names the file without the sandbox in what comes next', async () => {
    const { err } = await init({ ...SAMPLE_INIT, outcome: 'appended' }, ['--sandbox']);
    expect(err).toContain('then: holdfast --config /work/holdfast.yaml check');
  });

  it('refuses to add and to replace at once', async () => {
    const { status, err } = await init(SAMPLE_INIT, ['--append', '--force']);
    expect(status).toBe(2);
    expect(err).toContain('exclude each other');
  });

  it('gives all of it as one document', async () => {
    const { out } = await init(SAMPLE_INIT, ['--json']);
    expect(JSON.parse(out)).toEqual(SAMPLE_INIT);
  });
});
