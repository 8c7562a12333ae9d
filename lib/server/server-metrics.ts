// What a server counts and measures.
import type { Model, Usage } from '../index';
import type { Admission } from './admission';
import { Counter, exposition, Gauge, Histogram, type Metric } from './metrics';
import { prefixCacheMetrics } from './prefix-cache-metrics';
import type { Sessions } from './sessions';

const seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100];

export class ServerMetrics {
  readonly requests = new Counter('linattn_requests_total', 'Answered requests by route and status; 499: client gone.');
  readonly errors = new Counter('linattn_errors_total', 'Failed requests by code.');
  private readonly promptTokens = new Counter('linattn_prompt_tokens_total', 'Tokens of prompts, cached ones too.');
  private readonly cachedTokens = new Counter('linattn_cached_tokens_total', 'Tokens of prompts that were not read.');
  private readonly completionTokens = new Counter('linattn_completion_tokens_total', 'Generated tokens.');
  readonly firstToken = new Histogram(
    'linattn_time_to_first_token_seconds',
    'From the arrival of a request to its first token.',
    seconds,
  );
  readonly token = new Histogram('linattn_token_seconds', 'Between two tokens of an answer.', seconds);
  private readonly gauges: readonly Metric[];

  constructor(model: Model, admission: Admission, sessions: Sessions) {
    const gauge = (name: string, help: string, read: () => number) => new Gauge(`linattn_${name}`, help, read);
    this.gauges = [
      gauge('requests_running', 'Requests that read or write.', () => admission.running),
      gauge('requests_waiting', 'Requests that wait for their turn.', () => admission.waiting),
      gauge('sessions', 'Sessions held between requests.', () => sessions.size),
      gauge(
        'state_bytes',
        'Constant-size states of running requests and of sessions.',
        () => (admission.running + sessions.size) * model.info.stateBytes,
      ),
      new Gauge('process_resident_memory_bytes', 'Resident memory of the process.', () => process.memoryUsage.rss()),
      ...prefixCacheMetrics(model),
    ];
    for (const counter of [this.promptTokens, this.cachedTokens, this.completionTokens]) counter.add(0);
  }

  /** Of an answer that was given. */
  count({ promptTokens, cachedTokens, completionTokens }: Pick<Usage, 'promptTokens'> & Partial<Usage>): void {
    this.promptTokens.add(promptTokens);
    this.cachedTokens.add(cachedTokens ?? 0);
    this.completionTokens.add(completionTokens ?? 0);
  }

  text(): string {
    const { requests, errors, promptTokens, cachedTokens, completionTokens, firstToken, token, gauges } = this;
    return exposition([requests, errors, promptTokens, cachedTokens, completionTokens, firstToken, token, ...gauges]);
  }
}
