import { isObject } from '../core/json.ts';
import type { SimulatorRequest, SimulatorResponse } from './simulator.ts';

function asked(json: unknown): string[] {
  const { permissions } = isObject(json) ? json : {};
  return Array.isArray(permissions) ? permissions.map(String) : [];
}

/**
 * Tells whether a request asks the Resource Manager API v1 which permissions of one service the caller has on a project:
 * all services of Google are asked at the same place.
 */
export function asksPermissions({ method, url, json }: SimulatorRequest, service: string): boolean {
  return (
    method === 'POST' &&
    /^\/v1\/projects\/[^/]+:testIamPermissions$/.test(url.pathname) &&
    asked(json).some((name) => name.startsWith(`${service}.`))
  );
}

/** Answers with those of the permissions that are not denied; no list at all where none is left. */
export function tellPermissions({ json }: SimulatorRequest, denied: ReadonlySet<string>): SimulatorResponse {
  const permissions = asked(json).filter((name) => !denied.has(name));
  return { status: 200, body: permissions.length === 0 ? {} : { permissions } };
}
