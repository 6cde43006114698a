export * as fleet from './fleet.ts';
export * as redisCloud from './redis-cloud.ts';
