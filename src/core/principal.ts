export type Role = 'viewer' | 'operator' | 'approver';

/** Who makes a call, or who decides about one. */
export interface Principal {
  /** Names the caller and its way in, `stdio:ana` or `http:ci-bot`; a confirmation token is bound to it. */
  readonly id: string;
  /** Names the person or account behind it whatever the way in; two-people compares this. */
  readonly person: string;
  /** `viewer` reads; `operator` may ask for everything that the guard then decides; `approver` may decide. */
  readonly roles: readonly Role[];
}
