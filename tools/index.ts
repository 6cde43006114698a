export * as fleet from './fleet.ts';
