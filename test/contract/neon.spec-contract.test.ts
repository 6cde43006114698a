import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { readSettings, writeSettings } from '../../src/providers/neon/declared.ts';
import { neon } from '../../src/providers/neon/provider.ts';
import { NEON_SANDBOX, type NeonSimulator, neonSimulator } from '../../src/simulators/neon.ts';
import * as tools from '../../tools/neon.ts';
import { type Bench, failure, startBench } from '../support/bench.ts';
import { granted } from '../support/runtime.ts';
import { type Contract, openContract, specDirectory, specReason } from './serve.ts';

const USED = [
  'getProject',
  'getCurrentUserOrganizations',
  'listProjects',
  'updateProject',
  'updateProjectBranch',
  'setSnapshotSchedule',
  'listProjectBranches',
  'getProjectBranch',
  'createProjectBranch',
  'deleteProjectBranch',
  'restoreProjectBranch',
  'listProjectBranchDatabases',
  'listProjectBranchEndpoints',
  'getProjectBranchSchemaComparison',
  'createSnapshot',
  'listSnapshots',
  'deleteSnapshot',
  'restoreSnapshot',
  'getSnapshotSchedule',
  'listProjectOperations',
  'getProjectOperation',
];

describe.skipIf(specDirectory === undefined)(`Neon against its official API description${specReason}`, () => {
  let contract: Contract;
  let bench: Bench<NeonSimulator>;

  beforeAll(async () => {
    contract = await openContract({ document: 'neon.openapi.json' });
    bench = await startBench({
      provider: neon as never,
      defines: 'neon/project',
      create: neonSimulator,
      secret: 'key',
      wrap: (simulator) => contract.wrap(simulator),
    });
  });
  afterAll(() => bench?.server.close());

  const ago = (ms: number) => new Date(bench.server.clock.now().getTime() - ms).toISOString();

  it('holds every request and every answer to it', async () => {
    bench.simulator.state.pageSize = 2;
    await bench.read(tools.getBackupInfo);
    await bench.read(tools.getBackupInfo, {}, await bench.connect({ project_id: 'quiet-night-448201', branch: null }));
    const ends = new Date(bench.server.clock.now().getTime() + 86_400_000).toISOString();
    const { output } = await bench.operate<JsonObject>(tools.createSnapshot, {
      timestamp: ago(60_000),
      expires_at: ends,
    });
    await bench.operate(tools.createSnapshot, { name: 'by lsn', lsn: '0/1DE2850' });
    const restores: JsonObject[] = [
      { restore_timestamp: ago(7_200_000), new_branch_name: 'moment' },
      { lsn: '0/1DE2850', new_branch_name: 'lsn' },
      { snapshot_id: String(output['id']), new_branch_name: 'preview' },
      { restore_timestamp: ago(7_200_000) },
      { lsn: '0/1DE2850', preserve_under_name: 'kept' },
      { source_branch_id: 'br-lively-dev-200001' },
      { snapshot_id: String(output['id']) },
    ];
    for (const input of restores) await bench.operate(tools.restore, input);
    await bench.operate(tools.deleteSnapshot, { snapshot_id: String(output['id']) });
    const job_id = bench.simulator.state.project().operations[0]!.id;
    bench.simulator.state.project().operations[0]!.status = 'error';
    await bench.read(tools.getRestoreStatus, { job_id });
    bench.simulator.state.project().operations[0]!.status = undefined;
    await bench.read(tools.getRestoreStatus, { job_id: NEON_SANDBOX.drill });
    await bench.operate(tools.deleteBranch, { branch_id: NEON_SANDBOX.drill });
    const made = bench.simulator.state.branch('moment').id;
    await bench.operate(tools.deleteBranch, { branch_id: made, hard_delete: true });
    const { runtime, signal } = await bench.connect();
    const access = { api_key: { secret: 'env', name: 'KEY' } };
    const seen = await neon.discover!({ runtime, access, endpoint: bench.server.origin, signal });
    expect(seen?.found).not.toEqual([]);
    const declared = {
      history_retention_seconds: 86_400,
      backup_schedule: [
        { frequency: 'weekly', hour: 4, day: 7 },
        { frequency: 'monthly', hour: 5, day: 31, retention_seconds: 3_024_000 },
      ],
      protected: true,
    };
    const context = (await bench.connect(declared)) as never;
    const { findings } = await readSettings(context);
    for (const { change } of findings) await granted(() => writeSettings(context, change!.write));
    expect((await readSettings(context)).findings.every(({ verdict }) => verdict === 'as_declared')).toBe(true);
    expect(contract.faults).toEqual([]);
    expect([...contract.seen].sort()).toEqual([...USED].sort());
  });

  it('holds refusals to it', async () => {
    const { state } = bench.simulator;
    state.locked = 9;
    await failure(bench.operate(tools.restore, { lsn: '0/1DE2850', new_branch_name: 'locked' }));
    state.locked = 0;
    state.project().branchesLimit = 1;
    await failure(bench.operate(tools.restore, { lsn: '0/1DE2850', new_branch_name: 'more' }));
    await failure(bench.read(tools.getRestoreStatus, { job_id: 'br-nowhere-1' }));
    state.unauthenticated = true;
    await failure(bench.read(tools.getBackupInfo));
    state.unauthenticated = false;
    expect(contract.faults).toEqual([]);
    expect(contract.unusedAllowances()).toEqual([]);
  });

  it('would notice a request that does not fit, a body of the snapshot call first of all', async () => {
    const before = contract.faults.length;
    const send = (path: string, body: object) =>
      fetch(`${bench.server.origin}/api/v2/projects/${NEON_SANDBOX.project}${path}`, {
        method: 'POST',
        headers: { authorization: 'Bearer key', 'content-type': 'application/json' },
        body: JSON.stringify(body),
      });
    await send('/branches/br-x-1/snapshot', { name: 'x' });
    await send('/branches/br-x-1/restore', { source_timestamp: 'now', keep: true });
    await send('/branches', { branch: { parent: 'main' } });
    expect(contract.faults.slice(before).join('\n')).toMatch(
      /createSnapshot: request has a body, and the operation takes none[\s\S]*must have required property 'source_branch_id'[\s\S]*keep is not in the document[\s\S]*parent is not in the document/,
    );
    contract.faults.length = before;
  });
});
