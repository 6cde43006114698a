import { z } from 'zod';
import { parseDuration } from '../core/time.ts';

/** A duration as text (`15m`, `7d`, `P7D`), read into whole seconds within bounds. */
export function duration(bounds: { least?: number; most?: number } = {}) {
  return z.string().transform((text, context): number => {
    try {
      const seconds = parseDuration(text);
      if (seconds >= (bounds.least ?? 1) && seconds <= (bounds.most ?? Number.MAX_SAFE_INTEGER)) return seconds;
      const limits =
        bounds.most === undefined
          ? `at least ${bounds.least ?? 1} s`
          : `between ${bounds.least ?? 1} s and ${bounds.most} s`;
      context.addIssue({ code: 'custom', message: `must be ${limits}` });
    } catch {
      const params = { suggestion: 'Write 90s, 15m, 6h, 7d, 2w or ISO 8601 such as P7D.' };
      context.addIssue({ code: 'custom', message: 'is no duration', params });
    }
    return z.NEVER;
  });
}

/** Tells whether a host name or address is this machine only. */
export function isLoopback(host: string): boolean {
  const name = host.toLowerCase().replace(/^\[|\]$/g, '');
  return name === 'localhost' || name.endsWith('.localhost') || name === '::1' || /^127(?:\.\d{1,3}){3}$/.test(name);
}

/** An origin, `https://host:port`; plain http only to this machine. */
export const Origin = z.string().transform((text, context): string => {
  const refuse = (message: string, suggestion: string): never => {
    context.addIssue({ code: 'custom', message, params: { suggestion } });
    return z.NEVER;
  };
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return refuse('is no URL', 'Write an origin such as https://host:8443.');
  }
  if (url.username !== '' || url.password !== '')
    return refuse('must not hold credentials', 'Give them as parameters, by reference.');
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && isLoopback(url.hostname))) {
    return refuse('must be https', 'Plain http is allowed to this machine only, such as http://127.0.0.1:9000.');
  }
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '') {
    return refuse('must be an origin without a path', 'Write only scheme, host and port.');
  }
  return url.origin;
});
