// What the routes of a server share.
import type { Model } from '../index';
import type { ServerOptions } from './options';
import type { ServerMetrics } from './server-metrics';
import type { Sessions } from './sessions';
import type { Work } from './work';

export interface Service {
  readonly model: Model;
  readonly options: ServerOptions;
  readonly work: Work;
  readonly sessions: Sessions;
  readonly metrics: ServerMetrics;
  /** Seconds since 1970. */
  readonly started: number;
}
