import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/global.ts'],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // One more than the two cores that the suite is meant for: half of the longest files waits for servers and processes.
    maxWorkers: 3,
  },
});
