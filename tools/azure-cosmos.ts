import { z } from 'zod';
import { defineAction } from '../src/core/action.ts';
import { BackupInfo, InstantInput, ListInput, ProviderFacts, RestoreJob, Timestamp } from '../src/core/schemas.ts';
import { backupInfo } from '../src/providers/azure-cosmos/info.ts';
import { azureCosmos } from '../src/providers/azure-cosmos/provider.ts';
import { listAccounts, listContainers, listDatabases } from '../src/providers/azure-cosmos/restorable.ts';
import { planRestore, restoreResult, restoreStatus, restoreSteps } from '../src/providers/azure-cosmos/restore.ts';

const READ_ERRORS = [
  'AUTHENTICATION_FAILED',
  'INSUFFICIENT_PERMISSIONS',
  'RESOURCE_NOT_FOUND',
  'RATE_LIMITED',
  'PROVIDER_UNAVAILABLE',
  'TIMEOUT',
] as const;
const SOURCE_ERRORS = [...READ_ERRORS, 'BACKUP_NOT_FOUND', 'INVALID_PARAMETER', 'NOT_SUPPORTED'] as const;

const SANDBOX_SOURCE = '7c1d1f0a-3b52-4e0e-9a64-0c05a0000001';
const SANDBOX_LOCATION = 'West Europe';

export const getBackupInfo = defineAction({
  provider: azureCosmos,
  name: 'get-backup-info',
  title: 'Show how a Cosmos DB account is backed up',
  summary: 'Shows the backup policy, the restore window and what is missing.',
  risk: 'read',
  input: z.object({}),
  output: BackupInfo,
  errors: READ_ERRORS,
  source: 'Microsoft.DocumentDB 2026-03-15 DatabaseAccounts_Get, RestorableDatabaseAccounts_List',
  example: {},
  run: (context) => backupInfo(context),
});

export const listRestorableAccounts = defineAction({
  provider: azureCosmos,
  name: 'list-restorable-accounts',
  title: 'List the Cosmos DB accounts that can be restored',
  summary: 'Lists restorable accounts of the subscription, deleted ones too, with their source_id.',
  risk: 'read',
  input: z.object({ account_name: z.string().optional(), ...ListInput }),
  output: z.object({
    accounts: z.array(
      z.object({
        source_id: z.string(),
        account_name: z.string(),
        location: z.string(),
        api: z.string(),
        restorable: z.boolean(),
        live: z.boolean(),
        created_at: Timestamp.optional(),
        deleted_at: Timestamp.optional(),
        oldest_restorable_at: Timestamp.optional(),
        locations: z.array(
          z.object({ location: z.string(), created_at: Timestamp.optional(), deleted_at: Timestamp.optional() }),
        ),
      }),
    ),
    next_cursor: z.string().optional(),
  }),
  errors: [...READ_ERRORS, 'INVALID_PARAMETER'],
  source: 'Microsoft.DocumentDB 2026-03-15 RestorableDatabaseAccounts_List',
  example: { limit: 10 },
  run: (context, input) => listAccounts(context, input),
});

export const listRestorableDatabases = defineAction({
  provider: azureCosmos,
  name: 'list-restorable-databases',
  title: 'List the databases of a restorable Cosmos DB account',
  summary: 'Lists databases or tables of a restorable account: all it had, or those at restore_timestamp.',
  risk: 'read',
  input: z.object({ source_id: z.string(), location: z.string(), restore_timestamp: InstantInput.optional() }),
  output: z.object({
    api: z.string(),
    account_name: z.string(),
    at: Timestamp.optional(),
    databases: z.array(ProviderFacts),
  }),
  errors: SOURCE_ERRORS,
  source:
    'Microsoft.DocumentDB 2026-03-15 Restorable{Sql,Mongodb,Gremlin}Databases_List, RestorableTables_List, Restorable*Resources_List',
  example: { source_id: SANDBOX_SOURCE, location: SANDBOX_LOCATION },
  run: (context, input) => listDatabases(context, input),
});

export const listRestorableContainers = defineAction({
  provider: azureCosmos,
  name: 'list-restorable-containers',
  title: 'List the containers of a database in a restorable Cosmos DB account',
  summary: 'Lists containers, collections, graphs or tables that a restorable account had.',
  risk: 'read',
  input: z.object({
    source_id: z.string(),
    database_name: z.string().optional(),
    location: z.string(),
  }),
  output: z.object({
    api: z.string(),
    account_name: z.string(),
    database_name: z.string().optional(),
    containers: z.array(ProviderFacts),
  }),
  errors: SOURCE_ERRORS,
  source:
    'Microsoft.DocumentDB 2026-03-15 RestorableSqlContainers_List, RestorableMongodbCollections_List, RestorableGremlinGraphs_List, RestorableTables_List',
  example: { source_id: SANDBOX_SOURCE, database_name: 'shop', location: SANDBOX_LOCATION },
  run: (context, input) => listContainers(context, input),
});

export const restore = defineAction({
  provider: azureCosmos,
  name: 'restore',
  title: 'Restore a moment of a Cosmos DB account into a new account',
  summary: 'Restores a moment of source_id, from list_restorable_accounts, into the new account target_id.',
  risk: 'create',
  input: z.object({
    target_id: z.string(),
    source_id: z.string(),
    location: z.string(),
    restore_timestamp: InstantInput,
    only: z.array(z.string()).optional().describe('db, db/container, table'),
    public_network_access: z.enum(['disabled', 'as_source']).optional(),
    restore_with_ttl_disabled: z.boolean().optional().describe('keeps expired documents'),
  }),
  output: RestoreJob,
  errors: [...SOURCE_ERRORS, 'RESOURCE_EXISTS', 'INVALID_STATE', 'QUOTA_EXCEEDED', 'INTEGRITY_FAILED'],
  source: 'Microsoft.DocumentDB 2026-03-15 DatabaseAccounts_CreateOrUpdate, createMode Restore',
  example: {
    target_id: 'orders-cosmos-restored',
    source_id: SANDBOX_SOURCE,
    location: SANDBOX_LOCATION,
    restore_timestamp: '$latest',
  },
  plan: (context, input) => planRestore(context, input),
  steps: (_input, plan) => restoreSteps(plan),
  result: (results) => restoreResult(results),
});

export const getRestoreStatus = defineAction({
  provider: azureCosmos,
  name: 'get-restore-status',
  title: 'Show how a Cosmos DB restore stands',
  summary: 'Shows the restore that makes the account target_id and whether it can be used.',
  risk: 'read',
  input: z.object({ target_id: z.string() }),
  output: RestoreJob,
  errors: [...READ_ERRORS, 'INVALID_PARAMETER'],
  source: 'Microsoft.DocumentDB 2026-03-15 DatabaseAccounts_Get',
  example: { target_id: 'orders-cosmos-audit' },
  run: (context, { target_id }) => restoreStatus(context, target_id),
});
