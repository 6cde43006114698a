import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { findServerBinaries, type PrivateServer } from '../../src/postgres/private-server.ts';
import type { ReplicationStatus } from '../../src/postgres/replication.ts';
import {
  describePostgres,
  type PostgresHarness,
  sql,
  startPostgresHarness,
  startTestServer,
  values,
} from '../support/postgres.ts';

describePostgres('replication of a PostgreSQL server', () => {
  let primary: PrivateServer;
  let standby: { directory: string; stop: () => void };
  let atPrimary: PostgresHarness;
  let atStandby: PostgresHarness;

  const status = async (harness: PostgresHarness, input = {}): Promise<ReplicationStatus> =>
    (await harness.call('get-replication-status', input)) as unknown as ReplicationStatus;

  beforeAll(async () => {
    primary = await startTestServer();
    const { connection } = primary;
    await sql(
      connection,
      'postgres',
      'CREATE DATABASE shop',
      "SELECT pg_create_physical_replication_slot('standby_a')",
    );
    const { directory: bin } = await findServerBinaries();
    const directory = mkdtempSync(join(tmpdir(), 'hf-sb-'));
    const owner = statSync(primary.directory);
    const account = process.getuid?.() === 0 ? { uid: owner.uid, gid: owner.gid } : {};
    const data = join(directory, 'data');
    const env = { LC_ALL: 'C', PGPASSWORD: connection.password };
    if (process.getuid?.() === 0) execFileSync('chown', [`${owner.uid}:${owner.gid}`, directory]);
    const dsn = `host=127.0.0.1 port=${connection.port} user=postgres`;
    execFileSync(join(bin, 'pg_basebackup'), ['-D', data, '-R', '-S', 'standby_a', '-c', 'fast', '-d', dsn], {
      env,
      ...account,
    });
    const options = `-c port=${connection.port} -c listen_addresses= -c unix_socket_directories=${directory}`;
    execFileSync(join(bin, 'pg_ctl'), ['start', '-w', '-D', data, '-l', join(directory, 'log'), '-o', options], {
      env,
      stdio: 'ignore',
      ...account,
    });
    standby = {
      directory,
      stop: () => {
        execFileSync(join(bin, 'pg_ctl'), ['stop', '-m', 'immediate', '-D', data], {
          env,
          stdio: 'ignore',
          ...account,
        });
        rmSync(directory, { recursive: true, force: true });
      },
    };
    atPrimary = await startPostgresHarness({ connection, database: 'shop' });
    atStandby = await startPostgresHarness({ connection: { ...connection, host: directory }, database: 'shop' });
  }, 60_000);

  afterAll(async () => {
    await atPrimary?.close();
    await atStandby?.close();
    standby?.stop();
    await primary?.stop();
  });

  it('tells from the primary that the standby is in step, and what its slot holds', async () => {
    const { role, verdict, peers, slots, warnings, lsn } = await status(atPrimary);
    expect({ role, verdict, warnings }).toEqual({ role: 'primary', verdict: 'healthy', warnings: [] });
    expect(lsn).toMatch(/^[0-9A-F]+\/[0-9A-F]+$/);
    expect(peers).toEqual([expect.objectContaining({ state: 'streaming', sync: 'async' })]);
    expect(peers[0]?.lag_bytes).toBeLessThan(10_000_000);
    expect(slots).toEqual([
      expect.objectContaining({ name: 'standby_a', type: 'physical', active: true, wal_status: 'reserved' }),
    ]);
  });

  it('tells from the standby what it has replayed, and that silence of the primary cannot be seen there', async () => {
    const { role, verdict, standby: view, warnings } = await status(atStandby);
    expect({ role, verdict }).toEqual({ role: 'standby', verdict: 'healthy' });
    expect(view).toMatchObject({
      receiver: 'streaming',
      upstream: `127.0.0.1:${primary.connection.port}`,
      replay_paused: false,
    });
    expect(warnings).toEqual([expect.stringContaining('ask the primary as well')]);
  });

  it('sees a standby that stopped replaying fall behind, from both sides', async () => {
    const standbyServer = { ...primary.connection, host: standby.directory };
    await sql(standbyServer, 'postgres', 'SELECT pg_wal_replay_pause()');
    await sql(
      primary.connection,
      'shop',
      'CREATE TABLE filler AS SELECT i, repeat($$x$$, 500) FROM generate_series(1, 2000) i',
    );
    const limits = { max_lag_bytes: 100_000 };
    const primarySide = await status(atPrimary, limits);
    expect(primarySide.verdict).toBe('lagging');
    expect(primarySide.peers[0]?.lag_bytes).toBeGreaterThan(100_000);
    expect(primarySide.warnings[0]).toContain('bytes');
    const standbySide = await status(atStandby, limits);
    expect(standbySide.verdict).toBe('broken');
    expect(standbySide.warnings).toContain('Replay on this standby is paused.');
    await sql(standbyServer, 'postgres', 'SELECT pg_wal_replay_resume()');
  });

  it('warns of a slot that nobody reads and that holds the log back without a limit', async () => {
    await sql(
      primary.connection,
      'postgres',
      "SELECT pg_create_physical_replication_slot('forgotten', true)",
      'CREATE TABLE more AS SELECT i, repeat($$x$$, 500) FROM generate_series(1, 2000) i',
    );
    const { verdict, warnings, slot_limit_bytes } = await status(atPrimary, { max_lag_bytes: 100_000 });
    expect(verdict).toBe('lagging');
    expect(slot_limit_bytes).toBeNull();
    expect(warnings.join(' ')).toMatch(/Nobody reads the slot 'forgotten'.*without a limit.*fill the disk/);
    await sql(primary.connection, 'postgres', "SELECT pg_drop_replication_slot('forgotten')");
  });

  it('says to a role without rights what it cannot see', async () => {
    const password = primary.connection.password;
    await sql(primary.connection, 'postgres', `CREATE ROLE plain LOGIN PASSWORD '${password}'`);
    const harness = await startPostgresHarness({
      connection: { ...primary.connection, user: 'plain' },
      database: 'shop',
    });
    const { peers, warnings } = await status(harness);
    await harness.close();
    expect(peers[0]).toMatchObject({ state: null });
    expect(warnings.join(' ')).toContain('GRANT pg_monitor');
  });

  it('calls a lost slot broken', async () => {
    await sql(
      primary.connection,
      'postgres',
      "SELECT pg_create_physical_replication_slot('losing', true)",
      "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'",
      'SELECT pg_reload_conf()',
    );
    for (let round = 0; round < 3; round += 1)
      await sql(primary.connection, 'postgres', 'SELECT pg_switch_wal()', 'CHECKPOINT');
    expect(
      await values(
        primary.connection,
        'postgres',
        "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'losing'",
      ),
    ).toEqual(['lost']);
    const { verdict, warnings } = await status(atPrimary);
    expect(verdict).toBe('broken');
    expect(warnings[0]).toBe("The slot 'losing' is lost: its peer cannot go on and must be made anew.");
  });
});
