import type { JsonObject } from '../core/json.ts';
import type { Log } from '../core/runtime.ts';
import type { Redactor } from './redaction.ts';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface LogOptions {
  /** Where lines go: standard error, for standard output belongs to MCP and to results. */
  readonly stream: NodeJS.WritableStream;
  readonly redactor: Redactor;
  readonly level: LogLevel;
  readonly now?: (() => Date) | undefined;
}

/** Reads a level as `HOLDFAST_LOG` gives it; what is no level counts as not set. */
export function logLevel(text: string | undefined, fallback: LogLevel = 'warn'): LogLevel {
  const level = text?.trim().toLowerCase();
  return LOG_LEVELS.find((known) => known === level) ?? fallback;
}

/** Writes structured log lines, one JSON object each, every one redacted throughout. It never throws. */
export function createLog(options: LogOptions): Log {
  const { stream, redactor, now = () => new Date() } = options;
  const least = LOG_LEVELS.indexOf(options.level);
  // A reader that goes away must not bring the server down.
  if (stream.listenerCount('error') === 0) stream.on('error', () => {});

  const at = (level: LogLevel) => {
    if (LOG_LEVELS.indexOf(level) < least) return () => {};
    return (message: string, fields: JsonObject = {}): void => {
      const line = { time: now().toISOString(), level, message: redactor.redactText(message) };
      const rest = redactor.redactJson(fields);
      const extra = typeof rest === 'object' && rest !== null ? rest : { fields: rest };
      try {
        stream.write(`${JSON.stringify({ ...line, ...extra, ...line })}\n`);
      } catch {
        // A stream that is closed has no reader; there is nobody to tell.
      }
    };
  };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

/** Adds fields, an entity or a request id, to every line of a log. */
export function withFields(log: Log, fields: JsonObject): Log {
  return {
    debug: (message, more) => log.debug(message, { ...fields, ...more }),
    info: (message, more) => log.info(message, { ...fields, ...more }),
    warn: (message, more) => log.warn(message, { ...fields, ...more }),
    error: (message, more) => log.error(message, { ...fields, ...more }),
  };
}
