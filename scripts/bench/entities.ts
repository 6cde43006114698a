/** The public key of the age documentation; nothing is ever opened here. */
export const RECIPIENT = 'age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p';

export interface Place {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly storage: string;
  readonly encrypted: boolean;
}

/** An entities file with one database, `bench/db`, backed up into a directory. `more` are further parameters, a line each. */
export function entities({ host, port, user, storage, encrypted }: Place, more: readonly string[] = []): string {
  return [
    'namespace: bench',
    'db:',
    '  defines: postgresql/server',
    `  host: ${host}`,
    `  port: ${port}`,
    `  user: ${user}`,
    '  database: postgres',
    '  password: ${env:PGPASSWORD}',
    '  ssl_mode: disable',
    `  storage: { type: local, path: ${storage} }`,
    `  encryption: ${encrypted ? `{ recipients: [${RECIPIENT}] }` : 'none'}`,
    ...more.map((line) => `  ${line}`),
    '',
  ].join('\n');
}
