/** The risks of an action, lowest first; design §2 says what each one means. */
export const RISKS = ['read', 'create', 'change', 'weaken', 'delete', 'merge', 'overwrite'] as const;
export type Risk = (typeof RISKS)[number];

/** Tells whether `a` is at least as risky as `b`. */
export function atLeast(a: Risk, b: Risk): boolean {
  return RISKS.indexOf(a) >= RISKS.indexOf(b);
}

/** Gives the higher of two risks. */
export function higherRisk(a: Risk, b: Risk): Risk {
  return atLeast(a, b) ? a : b;
}

/** Tells whether a risk needs a confirmation unless policy says otherwise. */
export function isGuarded(risk: Risk): boolean {
  return atLeast(risk, 'weaken');
}

/** Tells whether no policy can ever let a risk through without a confirmation. */
export function hasFloor(risk: Risk): boolean {
  return atLeast(risk, 'merge');
}
