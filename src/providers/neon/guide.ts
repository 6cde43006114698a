import type { ProviderGuide } from '../../core/provider.ts';

const VIEW = 'CAN_VIEW on the project';
const EDIT = 'CAN_EDIT on the project';

/** What to know of Neon, from its API description of 2026-07-13 and its product guides. */
export const guide: ProviderGuide = {
  behaviour: [
    'A restore without new_branch_name replaces the branch itself with all its databases; Holdfast always has the present state kept as another branch.',
    'A restore into a new branch copies nothing and takes seconds; a snapshot comes back as a branch without a compute.',
    'After a snapshot was restored in place the branch has another id under its old name; name branches, not ids.',
    'After an instant restore the children of the branch hang on the kept one; of a child branch the kept one becomes the parent.',
    'A root branch that was restored from another branch leaves a kept root that cannot be deleted any more.',
    'A lower history window takes the older moments of every branch away at once; a higher one fills up from then on.',
    'Neon names neither end of the window; what Holdfast shows is estimated from the history window and the age of the root branch.',
    'Snapshots outlive the history window; those taken by hand stay until they are deleted or expire.',
    'A schedule is replaced whole; Holdfast sends every line with its retention in words.',
    'Protected branches can be neither deleted nor replaced.',
    'A deleted branch can be recovered for seven days unless it was deleted for good.',
    'A project does one thing at a time: what comes in between is refused before it begins, and Holdfast asks again.',
    'Connections drop for seconds when a branch is restored in place; hosts and connection strings stay.',
  ],
  limits: [
    'History: 6 hours at most on Free, where 1 GB of changes cuts it too; 7 days on Launch; 30 days on Scale.',
    'Snapshots by hand: 1 on Free, 100 on paid plans; schedules on paid plans only.',
    'Snapshots and schedules are of root branches only.',
    'Scheduled snapshots are kept 1 hour to 35 days.',
    'Branches: 10 on Free, 5000 on paid plans.',
    'Protected branches: none on Free, 2 on Launch, 5 on Scale.',
    '700 requests a minute and 40 a second for each route; Holdfast sends 8 a second at most.',
  ],
  credentials: ['api_key of the entity, a reference: ${env:NAME} or ${file:/path}', 'NEON_API_KEY of the environment'],
  permissions: {
    '*': [VIEW],
    'get-backup-info': [],
    'create-snapshot': [EDIT],
    'list-snapshots': [],
    'describe-snapshot': [],
    'delete-snapshot': [EDIT],
    restore: [EDIT],
    'delete-branch': [EDIT],
    'get-restore-status': [],
    'check-settings': [],
    'apply-settings': [EDIT],
  },
  grant: 'API key',
  // Keys have no scopes and none of them only reads: the least is a key of one project.
  policy(permissions, entity = {}) {
    const { project_id: id } = entity;
    const project = typeof id === 'string' ? `the project ${id}` : 'the project';
    return [
      `A project-scoped API key for ${project}: Neon console, organization settings, API keys, "Project-scoped".`,
      permissions.includes(EDIT)
        ? 'It may change branches, snapshots, schedule and history of this one project, and cannot delete the project.'
        : 'Only reads are made with it; Neon has no key that allows nothing else.',
    ].join('\n');
  },
};
