import { describe, expect, it } from 'vitest';
import { ERROR_CODES } from '../../src/core/errors.ts';
import { STANDARD_ACTIONS } from '../../src/core/provider.ts';
import { renderActions } from '../../src/surfaces/docs/actions.ts';
import { expectGolden } from '../support/golden.ts';
import { registry } from './cli-support.ts';

const page = renderActions([...registry.fleet, ...registry.actions], registry.providers);

function section(title: string): string {
  const from = page.indexOf(`\n### ${title}\n`);
  expect(from, `${title} has no section`).toBeGreaterThan(-1);
  return page.slice(from, page.indexOf('\n### ', from + 1));
}

describe('the reference of actions', () => {
  it('looks like this', () => {
    expectGolden('test/golden/actions-reference.md', page);
  });

  it('has every action once, with its MCP name and a command line', () => {
    for (const action of [...registry.fleet, ...registry.actions]) {
      const prefix = action.kind === 'fleet' ? 'backup' : action.provider.id;
      const name = `${prefix}_${action.name}`.replaceAll('-', '_');
      expect(page.split(`\n### ${name}\n`)).toHaveLength(2);
      expect(section(name)).toMatch(/```sh\nholdfast (do|operations) /);
      expect(section(name)).toContain(`**${action.title}.** ${action.summary}`);
    }
  });

  it('gives the reason for every standard action that a provider lacks', () => {
    expect(page).toContain('| `get-backup-info` | no | Ask the console. |');
    for (const name of STANDARD_ACTIONS) expect(page).toContain(`| \`${name}\` |`);
  });

  it('names types, defaults, secrets, aliases, risks and answers', () => {
    const create = section('test_sql_create_snapshot');
    expect(create).toContain('| `copies` | integer |  | default `1` |');
    expect(create).toContain('| `mode` | full \\| incr |  |  |');
    expect(create).toContain('masked in plans, logs and the audit trail');
    expect(create).toContain('Answers with an operation');
    expect(section('test_sql_list_snapshots')).toContain('Also called `list-backups`');
    expect(section('test_sql_restore')).toContain('Risk: create to overwrite, guarded');
    expect(section('test_sql_restore')).toContain('On `test/sql` only');
    expect(section('test_sql_restore')).toContain('```ts\n{ restored: boolean }\n```');
  });

  it('lists the exit status of every error', () => {
    for (const code of Object.keys(ERROR_CODES)) expect(page).toContain(`\`${code}\``);
  });

  it('links only to sections that it has', () => {
    const anchors = [...page.matchAll(/^#+ (.*)$/gm)].map(([, title = '']) => title.toLowerCase().replaceAll(' ', '-'));
    const links = [...page.matchAll(/\]\(#([^)]+)\)/g)].map(([, link]) => link);
    expect(links.length).toBeGreaterThan(5);
    for (const link of links) expect(anchors).toContain(link);
  });
});
