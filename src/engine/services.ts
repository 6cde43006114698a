import { appendFile, mkdir, open, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { AuditTrail } from '../../guards/audit.ts';
import { decide } from '../../guards/policy.ts';
import { asHoldfastError, HoldfastError } from '../core/errors.ts';
import { withGrant, withoutGrant } from '../core/grant.ts';
import type { PolicyConfig } from '../core/policy.ts';
import type { Log } from '../core/runtime.ts';
import type { ServiceRequest } from './api.ts';

export interface ServicesOptions {
  readonly stateDirectory: string;
  readonly audit: AuditTrail;
  readonly policy: PolicyConfig;
  readonly log: Log;
  readonly now: () => Date;
}

/**
 * Lets through what programs do for an entity by themselves. Policy decides every time; the audit trail gets the beginning
 * and the end of a long run, and of processes that live for moments and come thousands of times a day the first of each
 * day, before it writes anything, and the day's sum.
 */
export class Services {
  readonly #options: ServicesOptions;

  constructor(options: ServicesOptions) {
    this.#options = options;
  }

  /**
   * Runs one piece of such work, with leave to write unless it only reads.
   * @throws {HoldfastError} POLICY_DENIED; AUDIT_UNAVAILABLE or STATE_UNAVAILABLE before anything is written
   */
  async run<T>(request: ServiceRequest, labels: Readonly<Record<string, string>>, work: () => Promise<T>): Promise<T> {
    this.#admit(request, labels);
    const { entity, name, risk, audited } = request;
    const began = performance.now();
    const tally = audited === 'day' ? await this.#openDay(request) : undefined;
    if (audited === 'run') await this.#record(request, 'intent', undefined);
    let outcome = 'ok';
    try {
      return await (risk === 'read' ? withoutGrant(work) : withGrant({ action: name, entity }, work));
    } catch (cause) {
      outcome = asHoldfastError(cause).code;
      throw cause;
    } finally {
      await (tally === undefined
        ? this.#record(request, 'result', outcome, Math.round(performance.now() - began))
        : appendFile(tally, `${outcome}\n`)
      ).catch((cause: unknown) => {
        this.#options.log.error('the result of a service was not recorded', { service: name, cause: String(cause) });
      });
    }
  }

  #admit({ principal, entity, name, risk }: ServiceRequest, labels: Readonly<Record<string, string>>): void {
    const { policy, now } = this.#options;
    const verdict = decide(policy, { principal, entity, labels, action: name, risk, now: now() });
    if (verdict.decision === 'allow') return;
    const why = verdict.decision === 'deny' ? (verdict.reason ?? verdict.rule) : 'it wants a confirmation each time';
    throw new HoldfastError('POLICY_DENIED', `policy does not allow ${name} on ${entity}: ${why}`, {
      hint: `Nothing was written. A rule in guard.rules with actions: [${name}] and decision: allow, before the one that decided, lets it through.`,
      details: { rule: verdict.rule },
    });
  }

  #record(
    { principal, entity, name, risk }: ServiceRequest,
    event: 'intent' | 'result',
    outcome: string | undefined,
    duration_ms?: number,
    via?: string,
  ): Promise<void> {
    const line = { event, principal: principal.id, entity, action: name, risk, outcome, duration_ms, via };
    return this.#options.audit.append(line, event === 'intent');
  }

  /** Gives the file that counts this day's runs; who makes it has recorded that the day's work begins. */
  async #openDay(request: ServiceRequest): Promise<string> {
    const { stateDirectory, now } = this.#options;
    const folder = join(stateDirectory, 'services', request.entity.replaceAll('/', '~'));
    const day = now().toISOString().slice(0, 10);
    const path = join(folder, `${request.name}.${day}`);
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      await (await open(path, 'ax', 0o600)).close();
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'EEXIST') return path;
      throw new HoldfastError('STATE_UNAVAILABLE', 'the state directory cannot be written', { cause });
    }
    try {
      await this.#closeDays(request, folder, day);
      await this.#record(request, 'intent', undefined, undefined, `day ${day}`);
    } catch (cause) {
      await rm(path, { force: true });
      // At night the answer of a read matters more than its line.
      if (request.risk === 'read') return path;
      throw cause;
    }
    return path;
  }

  /** Records what the days before came to. */
  async #closeDays(request: ServiceRequest, folder: string, today: string): Promise<void> {
    const prefix = `${request.name}.`;
    const days = (await readdir(folder)).filter((file) => file.startsWith(prefix) && file.slice(prefix.length) < today);
    for (const file of days.sort()) {
      const path = join(folder, file);
      const counts = new Map<string, number>();
      for (const outcome of (await readFile(path, 'utf8')).split('\n')) {
        if (outcome !== '') counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
      }
      const sum = [...counts].map(([outcome, count]) => `${count} ${outcome}`).join(', ');
      await this.#record(
        request,
        'result',
        sum === '' ? 'nothing' : sum,
        undefined,
        `day ${file.slice(prefix.length)}`,
      );
      await rm(path, { force: true });
    }
  }
}
