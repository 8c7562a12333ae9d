// What the prefix cache of a model did and holds, as metrics; none where the model has no cache.
import type { Model, PrefixCacheStats } from '../index';
import { type Metric, Observed } from './metrics';

export function prefixCacheMetrics(model: Model): Metric[] {
  if (model.prefixCache === undefined) return [];
  const metric = (
    type: 'counter' | 'gauge',
    name: string,
    help: string,
    values: (stats: PrefixCacheStats) => [Record<string, string>, number][],
  ) => new Observed(type, `linattn_prefix_cache_${name}`, help, () => values(model.prefixCache!));
  const tiers = (device: number, host: number): [Record<string, string>, number][] => [
    [{ tier: 'device' }, device],
    [{ tier: 'host' }, host],
  ];
  return [
    metric('counter', 'hits_total', 'Texts of which the cache gave a beginning.', ({ hits }) => [[{}, hits]]),
    metric('counter', 'misses_total', 'Texts of which it gave nothing.', ({ misses }) => [[{}, misses]]),
    metric('counter', 'tokens_total', 'Tokens that it saved the reading of.', (stats) => [[{}, stats.cachedTokens]]),
    metric('counter', 'evictions_total', 'States that made room for others.', (stats) =>
      tiers(stats.deviceEvictions, stats.hostEvictions),
    ),
    metric('gauge', 'states', 'States held.', (stats) => tiers(stats.deviceStates, stats.hostStates)),
    metric('gauge', 'bytes', 'Their bytes.', (stats) => tiers(stats.deviceBytes, stats.hostBytes)),
    metric('counter', 'store_bytes_total', 'Bytes of states from and to the store.', (stats) => [
      [{ direction: 'read' }, stats.storeReadBytes],
      [{ direction: 'written' }, stats.storeWrittenBytes],
    ]),
    metric('counter', 'store_errors_total', 'Calls of the store that failed.', (stats) => [[{}, stats.storeErrors]]),
  ];
}
