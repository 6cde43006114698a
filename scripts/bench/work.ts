/** The work of both servers in the comparison, without a provider: what is left is what the servers add. */
export function listSnapshots() {
  return {
    snapshots: ['s3', 's2', 's1'].map((id, index) => ({
      id,
      kind: 'on_demand',
      status: 'available',
      created_at: `2026-11-${20 - index}T03:00:00.000Z`,
      restorable: true,
    })),
  };
}

/** Answers like a provider that has accepted a snapshot. */
export function createSnapshot() {
  return { snapshot_id: 's4', status: 'available' };
}
