import { randomUUID, scryptSync, timingSafeEqual } from 'node:crypto';
import { HoldfastError } from '../src/core/errors.ts';
import { canonicalJson, digestOf, type JsonObject, sha256 } from '../src/core/json.ts';
import { compareFacts, type Plan } from '../src/core/plan.ts';
import type { PolicyConfig } from '../src/core/policy.ts';
import type { Principal } from '../src/core/principal.ts';
import { hasFloor, isGuarded, RISKS } from '../src/core/risk.ts';
import { isSchedule } from '../src/core/schedule.ts';
import type { ConfirmationRecord, ConfirmationState, Requirement, StateStore } from '../src/core/state.ts';
import type { AuditTrail } from './audit.ts';
import { decide, type PolicyVerdict } from './policy.ts';
import { freshToken, isToken, normalCode } from './token.ts';

export interface GuardOptions {
  readonly store: StateStore;
  readonly audit: AuditTrail;
  readonly policy: PolicyConfig;
  readonly now: () => Date;
  readonly random: (bytes: number) => Buffer;
}

/** One call that asks to be let through, with its plan just made. */
export interface AdmissionRequest {
  readonly principal: Principal;
  /** `<provider>/<action>` */
  readonly action: string;
  readonly actionName: string;
  readonly entity: string;
  readonly labels: Readonly<Record<string, string>>;
  /** The whole input after parsing, in canonical form for the digest. */
  readonly input: unknown;
  /** The input as people may see it. */
  readonly shownInput: JsonObject;
  readonly plan: Plan;
  readonly allowLast: boolean;
  readonly token?: string | undefined;
  /** A confirmation that the surface has just had approved, in place of its token. */
  readonly confirmationId?: string | undefined;
}

/** Proof that a call was let through. Only `admit` makes one. */
export interface Admission {
  readonly decision: 'allow' | 'confirmed';
  readonly rule: string;
  readonly confirmationId: string | undefined;
}

export interface ApprovalRequest {
  /** Id or code. */
  readonly confirmation: string;
  readonly by: Principal;
  readonly via: 'elicitation' | 'terminal' | 'page';
  readonly typedTarget?: string | undefined;
  readonly passphrase?: string | undefined;
  readonly reason?: string | undefined;
}

/** Stands between every call and every provider: says yes only to what policy allows or a fitting confirmation proves. */
export class Guard {
  readonly #options: GuardOptions;
  readonly #policyDigest: string;

  constructor(options: GuardOptions) {
    this.#options = options;
    this.#policyDigest = digestOf(options.policy);
  }

  get policy(): PolicyConfig {
    return this.#options.policy;
  }

  /** Says what policy would decide about a call, opening nothing. */
  verdict(request: AdmissionRequest): PolicyVerdict {
    const { plan, principal } = request;
    const verdict = decide(this.#options.policy, {
      principal,
      entity: request.entity,
      labels: request.labels,
      action: request.actionName,
      risk: plan.risk,
      now: this.#options.now(),
    });
    if (
      plan.last_restorable === true &&
      !request.allowLast &&
      verdict.decision !== 'deny' &&
      verdict.require !== 'two-people'
    ) {
      return {
        ...verdict,
        decision: 'deny',
        rule: 'last restorable snapshot',
        reason:
          'this is the last restorable snapshot of the entity; take another first, or pass allow_last: true so that the plan says so',
      };
    }
    return verdict;
  }

  /**
   * Lets a call through or throws. Without a fitting token nothing is let through that policy does not allow by itself;
   * the token is spent before this returns.
   * @throws {HoldfastError} POLICY_DENIED, CONFIRMATION_REQUIRED, _PENDING, _INVALID, _EXPIRED, _USED, _MISMATCH, _DENIED, PLAN_CHANGED, STATE_UNAVAILABLE
   */
  async admit(request: AdmissionRequest): Promise<Admission> {
    const verdict = this.verdict(request);
    const { risk } = request.plan;
    if (verdict.decision === 'deny') {
      throw new HoldfastError('POLICY_DENIED', `policy forbids this call: ${verdict.reason ?? verdict.rule}`, {
        details: { rule: verdict.rule, plan: request.plan as unknown as JsonObject },
      });
    }
    // Belt and braces: whatever a rule said, a floor risk never gets past here without a confirmation.
    if (verdict.decision === 'allow' && RISKS.includes(risk) && !hasFloor(risk)) {
      await this.#refuseSpent(request);
      return { decision: 'allow', rule: verdict.rule, confirmationId: undefined };
    }
    if (isSchedule(request.principal.id)) throw unattended(request);
    if (request.token === undefined && request.confirmationId === undefined) {
      throw await this.#ask(request, verdict, 'CONFIRMATION_REQUIRED', `${describeRisk(risk)} needs confirmation`);
    }
    const record = await this.#find(request);
    await this.#check(record, request, verdict);
    if (
      !(await this.#options.store.moveConfirmation(record.id, 'approved', 'consumed', { decided_at: this.#stamp() }))
    ) {
      throw new HoldfastError('CONFIRMATION_USED', 'this confirmation was used by another call at the same moment');
    }
    return { decision: 'confirmed', rule: verdict.rule, confirmationId: record.id };
  }

  /**
   * A token is worth one call, also where what it was given for has been done and nothing guarded is left to do. Of a
   * call that needs none, a token that was given for another is nobody's concern: it stays as it is.
   */
  async #refuseSpent(request: AdmissionRequest): Promise<void> {
    const { token } = request;
    if (token === undefined || !isToken(token)) return;
    const record = await this.#options.store.confirmation({ token_sha256: sha256(token) });
    if (record?.state !== 'consumed') return;
    const parts = this.#parts(request);
    if ((['action', 'entity', 'input'] as const).some((part) => parts[part] !== record.parts[part])) return;
    throw new HoldfastError('CONFIRMATION_USED', 'this confirmation token was used before');
  }

  async #find(request: AdmissionRequest): Promise<ConfirmationRecord> {
    const { store } = this.#options;
    const { token, confirmationId } = request;
    const record =
      confirmationId !== undefined
        ? await store.confirmation({ id: confirmationId })
        : token !== undefined && isToken(token)
          ? await store.confirmation({ token_sha256: sha256(token) })
          : undefined;
    if (record === undefined)
      throw new HoldfastError('CONFIRMATION_INVALID', 'this confirmation token was never given out');
    return record;
  }

  async #check(record: ConfirmationRecord, request: AdmissionRequest, verdict: PolicyVerdict): Promise<void> {
    if (record.principal !== request.principal.id) {
      throw new HoldfastError('CONFIRMATION_MISMATCH', 'this confirmation token was given to another caller');
    }
    const parts = this.#parts(request);
    const other = (['action', 'entity', 'input'] as const).filter((part) => parts[part] !== record.parts[part]);
    if (other.length > 0) {
      throw new HoldfastError(
        'CONFIRMATION_MISMATCH',
        `this confirmation token belongs to a call with another ${other.join(' and ')}`,
        {
          details: { differs: [...other] },
        },
      );
    }
    const state = await this.#settle(record);
    if (state === 'denied')
      throw new HoldfastError('CONFIRMATION_DENIED', 'a person denied this call', { details: reasonOf(record) });
    if (state === 'consumed') throw new HoldfastError('CONFIRMATION_USED', 'this confirmation token was used before');
    if (state === 'expired')
      throw new HoldfastError('CONFIRMATION_EXPIRED', `this confirmation token expired at ${record.expires_at}`);
    if (state === 'void')
      throw new HoldfastError('CONFIRMATION_INVALID', 'this confirmation token is void because its plan changed');
    if (
      parts.facts !== record.parts.facts ||
      parts.policy !== record.parts.policy ||
      record.plan.risk !== request.plan.risk
    ) {
      await this.#options.store.moveConfirmation(record.id, state, 'void', { reason: 'the plan changed' });
      const differences = compareFacts(record.plan.facts, request.plan.facts);
      if (parts.policy !== record.parts.policy)
        differences.push({ path: 'policy', before: 'as approved', after: 'changed' });
      if (record.plan.risk !== request.plan.risk)
        differences.push({ path: 'risk', before: record.plan.risk, after: request.plan.risk });
      throw await this.#ask(request, verdict, 'PLAN_CHANGED', 'the target is not what was approved any more', {
        differences: differences as unknown as JsonObject[],
      });
    }
    if (state === 'pending') {
      throw new HoldfastError('CONFIRMATION_PENDING', `confirmation ${record.code} is waiting for a person`, {
        details: {
          confirmation: {
            id: record.id,
            code: record.code,
            require: record.require,
            expires_at: record.expires_at,
            approve_with: approveWith(record),
          },
        },
      });
    }
  }

  // Expiry needs no timer: a record past its time is expired from the moment anyone looks.
  async #settle(record: ConfirmationRecord): Promise<ConfirmationState> {
    if (
      (record.state === 'pending' || record.state === 'approved') &&
      this.#options.now().getTime() >= Date.parse(record.expires_at)
    ) {
      await this.#options.store.moveConfirmation(record.id, record.state, 'expired');
      return 'expired';
    }
    return record.state;
  }

  async #ask(
    request: AdmissionRequest,
    verdict: PolicyVerdict,
    code: 'CONFIRMATION_REQUIRED' | 'PLAN_CHANGED',
    message: string,
    details: JsonObject = {},
  ): Promise<HoldfastError> {
    const { store, random, now, policy } = this.#options;
    const fresh = freshToken(random);
    const created = now();
    const parts = this.#parts(request);
    const record: ConfirmationRecord = {
      id: randomUUID(),
      code: fresh.code,
      token_sha256: fresh.sha256,
      digest: digestOf(parts),
      parts,
      plan: request.plan,
      input: request.shownInput,
      principal: request.principal.id,
      person: request.principal.person,
      require: verdict.require,
      out_of_band: verdict.outOfBand || verdict.require === 'two-people',
      ...(policy.approver_passphrase_hash === undefined ? {} : { passphrase_hash: policy.approver_passphrase_hash }),
      state: verdict.require === 'token' ? 'approved' : 'pending',
      created_at: created.toISOString(),
      expires_at: new Date(created.getTime() + policy.confirmation_ttl_seconds * 1000).toISOString(),
    };
    await store.addConfirmation(record);
    const hint =
      verdict.require === 'token'
        ? 'Check the plan; to go ahead repeat exactly this call with confirmation_token.'
        : `Show the plan to a person, who approves with: ${approveWith(record)}. Then repeat exactly this call with confirmation_token.`;
    return new HoldfastError(code, message, {
      hint,
      details: {
        ...details,
        plan: request.plan as unknown as JsonObject,
        confirmation: {
          id: record.id,
          token: fresh.token,
          code: record.code,
          require: record.require,
          out_of_band: record.out_of_band,
          expires_at: record.expires_at,
          approve_with: approveWith(record),
        },
      },
    });
  }

  #parts(request: AdmissionRequest): ConfirmationRecord['parts'] {
    return {
      action: request.action,
      entity: request.entity,
      input: sha256(canonicalJson(request.input)),
      facts: digestOf(request.plan.facts),
      policy: this.#policyDigest,
    };
  }

  /** Newest first, each with the state it has now. */
  async confirmations(
    filter: { states?: readonly ConfirmationState[]; limit?: number } = {},
  ): Promise<ConfirmationRecord[]> {
    const records = await this.#options.store.confirmations(filter.limit === undefined ? {} : { limit: filter.limit });
    const settled = await Promise.all(
      records.map(async (record) => ({ ...record, state: await this.#settle(record) })),
    );
    return settled.filter((record) => filter.states === undefined || filter.states.includes(record.state));
  }

  /**
   * Records a person's yes.
   * @throws {HoldfastError} CONFIRMATION_INVALID for an unknown code, _EXPIRED, _DENIED, _USED; CONFIRMATION_MISMATCH for
   * another target name than the plan's; POLICY_DENIED for one who may not decide; AUTHENTICATION_FAILED for a wrong passphrase
   */
  async approve(request: ApprovalRequest): Promise<ConfirmationRecord> {
    const record = await this.#open(request);
    this.#mayApprove(record, request);
    if (request.typedTarget !== record.plan.target) {
      throw new HoldfastError(
        'CONFIRMATION_MISMATCH',
        `the name that was typed is not the target '${record.plan.target}'`,
        {
          hint: 'Nothing was approved. Type the name of the target exactly as the plan shows it.',
        },
      );
    }
    return this.#decide(record, request, 'approved');
  }

  /** Records a person's no. Anyone who may approve, and the caller's own client, may say no. */
  async deny(request: ApprovalRequest): Promise<ConfirmationRecord> {
    const record = await this.#open(request);
    const own = request.via === 'elicitation' && request.by.id === record.principal;
    if (!own && !request.by.roles.includes('approver'))
      throw new HoldfastError('POLICY_DENIED', 'this account may not decide about confirmations');
    return this.#decide(record, request, 'denied');
  }

  async #open(request: ApprovalRequest): Promise<ConfirmationRecord> {
    const { store } = this.#options;
    const record =
      (await store.confirmation({ id: request.confirmation })) ??
      (await store.confirmation({ code: normalCode(request.confirmation) }));
    if (record === undefined) {
      throw new HoldfastError('CONFIRMATION_INVALID', 'there is no confirmation with this code', {
        hint: 'holdfast approvals lists the open ones.',
      });
    }
    const state = await this.#settle(record);
    if (state === 'pending') return record;
    if (state === 'denied') throw new HoldfastError('CONFIRMATION_DENIED', `confirmation ${record.code} was denied`);
    if (state === 'consumed' || state === 'approved')
      throw new HoldfastError('CONFIRMATION_USED', `confirmation ${record.code} was decided before`);
    if (state === 'expired')
      throw new HoldfastError('CONFIRMATION_EXPIRED', `confirmation ${record.code} expired at ${record.expires_at}`);
    throw new HoldfastError('CONFIRMATION_INVALID', `confirmation ${record.code} is void because its plan changed`);
  }

  #mayApprove(record: ConfirmationRecord, request: ApprovalRequest): void {
    if (request.via === 'elicitation') {
      if (record.require !== 'human' || record.out_of_band) {
        throw new HoldfastError('POLICY_DENIED', 'policy wants this approved apart from the calling client', {
          hint: `Approve with: ${approveWith(record)}`,
        });
      }
      if (request.by.id !== record.principal)
        throw new HoldfastError('POLICY_DENIED', 'only the caller that was asked can answer');
      return;
    }
    if (!request.by.roles.includes('approver'))
      throw new HoldfastError('POLICY_DENIED', 'this account may not approve', { hint: 'It needs the role approver.' });
    if (record.require === 'two-people' && request.by.person === record.person) {
      throw new HoldfastError(
        'POLICY_DENIED',
        'policy wants a second person: the caller cannot approve their own call',
      );
    }
    if (record.passphrase_hash !== undefined && !passphraseFits(request.passphrase, record.passphrase_hash)) {
      throw new HoldfastError('AUTHENTICATION_FAILED', 'the approver passphrase is missing or wrong', {
        hint: 'Nothing was approved.',
      });
    }
  }

  async #decide(
    record: ConfirmationRecord,
    request: ApprovalRequest,
    state: 'approved' | 'denied',
  ): Promise<ConfirmationRecord> {
    const { store, audit } = this.#options;
    await audit.append(
      {
        event: state,
        principal: request.by.id,
        entity: record.plan.entity,
        action: record.plan.action,
        risk: record.plan.risk,
        target: record.plan.target,
        confirmation_id: record.id,
        via: request.via,
      },
      true,
    );
    const patch = {
      decided_by: request.by.id,
      decided_via: request.via,
      decided_at: this.#stamp(),
      ...(request.reason === undefined ? {} : { reason: request.reason }),
    };
    if (!(await store.moveConfirmation(record.id, 'pending', state, patch))) {
      throw new HoldfastError(
        'CONFIRMATION_USED',
        `confirmation ${record.code} was decided by someone else at the same moment`,
      );
    }
    return { ...record, ...patch, state };
  }

  #stamp(): string {
    return this.#options.now().toISOString();
  }
}

function approveWith(record: { code: string; require: Requirement }): string {
  return record.require === 'token' ? 'the token itself' : `holdfast approve ${record.code}`;
}

/** A schedule asks when nobody is there: its call ends here, and no confirmation lies in wait for whoever approves it. */
function unattended({ plan, entity, actionName }: AdmissionRequest): HoldfastError {
  return new HoldfastError(
    'CONFIRMATION_REQUIRED',
    `${describeRisk(plan.risk)} needs confirmation; a schedule has none`,
    {
      details: { plan: plan as unknown as JsonObject },
      hint: `Nothing was run. Look at the plan and make the call yourself, ${entity}/${actionName}; it then asks for a confirmation.`,
    },
  );
}

function describeRisk(risk: string): string {
  const words: Record<string, string> = {
    weaken: 'lessening protection',
    delete: 'deleting',
    merge: 'writing into live data',
    overwrite: 'replacing live data',
  };
  return words[risk] ?? (isGuarded(risk as never) ? risk : 'this call');
}

function reasonOf(record: ConfirmationRecord): JsonObject {
  return { decided_at: record.decided_at, decided_by: record.decided_by, reason: record.reason };
}

// scrypt$N$r$p$salt$hash, salt and hash in base64.
function passphraseFits(passphrase: string | undefined, stored: string): boolean {
  const [scheme, n, r, p, salt, hash] = stored.split('$');
  if (passphrase === undefined || scheme !== 'scrypt' || salt === undefined || hash === undefined) return false;
  const expected = Buffer.from(hash, 'base64');
  const actual = scryptSync(passphrase, Buffer.from(salt, 'base64'), expected.length, {
    N: Number(n),
    r: Number(r),
    p: Number(p),
    maxmem: 256 * 1024 * 1024,
  });
  return expected.length > 0 && timingSafeEqual(actual, expected);
}
