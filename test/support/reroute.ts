// Preloaded into the program: what goes to Google's and Azure's hosts for tokens goes to this test's own host on loopback.
const host = process.env['HOLDFAST_TEST_TOKEN_HOST'];
const real = globalThis.fetch;
globalThis.fetch = (input, init) => {
  const url = new URL(input instanceof Request ? input.url : String(input));
  if (host === undefined || !/\.googleapis\.com$|^login\.microsoftonline\.com$/.test(url.hostname))
    return real(input, init);
  return real(new URL(url.pathname + url.search, host), init);
};

// And pauses pass HOLDFAST_TEST_PACE times faster; the time-out of a connection keeps its length, for a busy machine needs it.
const CONNECTING_MS = 15_000;
const pace = Number(process.env['HOLDFAST_TEST_PACE'] ?? 1);
const wait = globalThis.setTimeout;
globalThis.setTimeout = Object.assign(
  ((work: () => void, ms = 0, ...rest: []) =>
    wait(work, ms > 50 && ms !== CONNECTING_MS ? ms / pace : ms, ...rest)) as typeof setTimeout,
  wait,
);
