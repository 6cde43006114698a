import { constants, type Stats } from 'node:fs';
import { open } from 'node:fs/promises';
import { resolve } from 'node:path';
import { HoldfastError } from '../core/errors.ts';
import type { Log, Runtime, SecretRef } from '../core/runtime.ts';
import { type Environment, HOW_VARIABLES_ARRIVE, LARGEST_VALUE_FILE } from './references.ts';

export interface SecretReaderOptions {
  readonly env: Environment;
  readonly conceal: (value: string) => void;
  /** What relative file names start from. */
  readonly baseDirectory?: string | undefined;
  /** Told once about each secret file that others can read. */
  readonly log?: Log | undefined;
}

/** Names of variables whose values are no secrets; concealing `us-east-1` would blot out half of every log. */
const PLAIN =
  /(?:REGION|PROFILE|PROJECT|ACCOUNT|ID|ENDPOINT|URL|HOST|PORT|USER|USERNAME|FILE|PATH|CREDENTIALS|DATABASE|ENABLED|DISABLED|DETECTION|CLOUD|AUTHORITY|EMAIL)$/;

/** Gives the two ways in which a runtime reads secrets; every value read is concealed before it is handed on. */
export function secretReader(options: SecretReaderOptions): Pick<Runtime, 'secret' | 'credential'> {
  const { env, conceal, log, baseDirectory = '.' } = options;
  const warned = new Set<string>();

  return {
    async secret(ref) {
      const value = ref.secret === 'env' ? env[ref.name] : await readSecretFile(resolve(baseDirectory, ref.name), ref);
      if (value === undefined || value === '') throw missing(ref);
      conceal(value);
      return value;
    },
    credential(name) {
      const value = env[name];
      if (value === undefined || value === '') return undefined;
      // Some programs take a whole key file where a path is expected.
      if (!PLAIN.test(name) || value.trimStart().startsWith('{')) conceal(value);
      return value;
    },
  };

  async function readSecretFile(path: string, ref: SecretRef): Promise<string | undefined> {
    try {
      // Without O_NONBLOCK the open of a pipe would wait for a writer.
      const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
      try {
        const stats = await file.stat();
        if (!stats.isFile()) throw unusable(ref, 'is no regular file');
        if (stats.size > LARGEST_VALUE_FILE) throw unusable(ref, 'is larger than 64 KiB');
        warnOfMode(stats, ref);
        return (await file.readFile('utf8')).replace(/\r?\n$/, '');
      } finally {
        await file.close();
      }
    } catch (cause) {
      if (cause instanceof HoldfastError) throw cause;
      if ((cause as { code?: unknown }).code === 'ENOENT') return undefined;
      throw unusable(ref, 'cannot be read');
    }
  }

  function warnOfMode(stats: Stats, ref: SecretRef): void {
    // Windows has no such modes and shows every file as readable by all.
    if (process.platform === 'win32' || (stats.mode & 0o077) === 0 || warned.has(ref.name)) return;
    warned.add(ref.name);
    const mode = (stats.mode & 0o777).toString(8).padStart(4, '0');
    log?.warn('a secret file can be read by other users of this machine; use mode 0600', { file: ref.name, mode });
  }
}

function missing(ref: SecretRef): HoldfastError {
  if (ref.secret === 'file') {
    return new HoldfastError('AUTHENTICATION_FAILED', `the secret file '${ref.name}' is not there or is empty`, {
      hint: `Write the secret into '${ref.name}', readable only for the user that Holdfast runs as.`,
    });
  }
  return new HoldfastError('AUTHENTICATION_FAILED', `the variable '${ref.name}' is not set`, {
    hint: `Set ${ref.name} for Holdfast, then start it again. ${HOW_VARIABLES_ARRIVE}`,
  });
}

function unusable(ref: SecretRef, problem: string): HoldfastError {
  return new HoldfastError('AUTHENTICATION_FAILED', `the secret file '${ref.name}' ${problem}`, {
    hint: 'Name a small text file that holds only the secret, readable for the user that Holdfast runs as.',
  });
}
