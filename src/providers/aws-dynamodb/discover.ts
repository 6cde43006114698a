import type { Discovered, Discovery, DiscoveryContext } from '../../core/provider.ts';
import { cleanText } from '../../core/text.ts';
import { awsClientConfig, parseArn } from '../aws.ts';
import { lookThrough } from '../aws-discovery.ts';
import { entityName } from '../discovery.ts';
import { createDynamoDbClient, DYNAMODB_CALLS, type DynamoDbClient } from './client.ts';
import { recoveryFrom } from './map.ts';

/** Each table takes two reads, of which five a second are sent: the settings of more would take minutes. */
const MOST_READ = 200;
/** The service's own limit, before it was raised. */
const MOST_NAMED = 2500;
const AT_ONCE = 8;

/** Looks through the tables of a region; undefined without credentials. */
export function discover(context: DiscoveryContext): Promise<Discovery | undefined> {
  const { runtime, signal } = context;
  return lookThrough(context, async (access, attempt) => {
    const config = awsClientConfig(access, runtime, DYNAMODB_CALLS);
    const client = await createDynamoDbClient({ region: access.region, table: '', config });
    try {
      const names = (await attempt(() => tables(client, signal), 'tables are not shown')) ?? [];
      const found: Discovered[] = [];
      let account: string | undefined;
      for (let from = 0; from < names.length; from += AT_ONCE) {
        const some = names.slice(from, from + AT_ONCE).map(async (name, index) => {
          const identity = { region: access.region, table_name: name };
          const isRead = from + index < MOST_READ;
          const table = isRead
            ? await attempt(() => read(client, name, signal), `the settings of the table ${name} are not shown`)
            : undefined;
          account ??= parseArn(table?.arn)?.account;
          return {
            defines: 'aws-dynamo-db/dynamo-db-table',
            name: entityName(name),
            parameters: { ...identity, ...table?.settings },
            notes: table?.notes ?? [
              isRead
                ? 'Its settings could not be read.'
                : `Its settings were not read: there are more than ${MOST_READ} tables.`,
            ],
          };
        });
        found.push(...(await Promise.all(some)));
      }
      return { found, account };
    } finally {
      client.close();
    }
  });
}

async function tables(client: DynamoDbClient, signal: AbortSignal): Promise<string[]> {
  const names: string[] = [];
  let after: string | undefined;
  do {
    const page = await client.listTables(after, signal);
    names.push(...page.names);
    after = page.next;
  } while (after !== undefined && names.length < MOST_NAMED);
  return names;
}

async function read(client: DynamoDbClient, name: string, signal: AbortSignal) {
  const [table, backups] = await Promise.all([
    client.describeTable(name, signal),
    client.continuousBackups(name, signal),
  ]);
  const recovery = recoveryFrom(backups);
  const isProtected = table.DeletionProtectionEnabled === true;
  const replicas = table.Replicas ?? [];
  return {
    arn: table.TableArn,
    settings: {
      point_in_time_recovery_enabled: recovery.enabled,
      ...(recovery.days === undefined ? {} : { recovery_period_in_days: recovery.days }),
      deletion_protection_enabled: isProtected,
    },
    notes: [
      ...(recovery.enabled ? [] : ['Point-in-time recovery is off: only backups on demand can be restored.']),
      ...(isProtected ? [] : ['Deletion protection is off.']),
      ...(replicas.length === 0
        ? []
        : [`A global table, with replicas in ${replicas.map((one) => cleanText(one.RegionName, 40)).join(', ')}.`]),
    ],
  };
}
