export type RunbookName = 'lost-data' | 'point-in-time' | 'pre-change-backup' | 'quarterly-drill' | 'backup-review';

interface ListedRunbook {
  readonly name: RunbookName;
  readonly title: string;
  readonly description: string;
  /** The prompt that fills it for one database. */
  readonly prompt: string;
}

/** The runbooks as lists show them; their texts are loaded when somebody asks. */
export const RUNBOOK_LIST: readonly ListedRunbook[] = [
  {
    name: 'lost-data',
    title: 'Lost or damaged data',
    description: 'Finds the best way back for a database and goes it with the person, step by step',
    prompt: 'disaster-recovery',
  },
  {
    name: 'point-in-time',
    title: 'Back to a moment',
    description: 'Brings data back as it was just before something wrong was written',
    prompt: 'point-in-time-recovery',
  },
  {
    name: 'pre-change-backup',
    title: 'Backup before a change',
    description: 'Takes a backup before a migration or an upgrade and makes sure of the way back',
    prompt: 'pre-change-backup',
  },
  {
    name: 'quarterly-drill',
    title: 'Restore drill',
    description: 'Restores the newest point into something new, checks it, measures, and removes it',
    prompt: 'quarterly-drill',
  },
  {
    name: 'backup-review',
    title: 'Backup review',
    description: 'Looks at every database and says what to fix first',
    prompt: 'backup-review',
  },
];
