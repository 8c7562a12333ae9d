// Counters, gauges and histograms in Prometheus' text format.
// Format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format

type Labels = Readonly<Record<string, string | number>>;

const escaped = (value: string | number): string =>
  String(value).replace(/[\\"\n]/g, (char) => (char === '\n' ? '\\n' : `\\${char}`));
const labelsOf = (labels: Labels): string => {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
};

export interface Metric {
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  lines(): string[];
}

export class Counter implements Metric {
  readonly type = 'counter';
  private readonly values = new Map<string, number>();

  constructor(
    readonly name: string,
    readonly help: string,
  ) {}

  add(amount = 1, labels: Labels = {}): void {
    const key = labelsOf(labels);
    this.values.set(key, (this.values.get(key) ?? 0) + amount);
  }

  lines(): string[] {
    return [...this.values].map(([labels, value]) => `${this.name}${labels} ${value}`);
  }
}

export class Gauge implements Metric {
  readonly type = 'gauge';

  constructor(
    readonly name: string,
    readonly help: string,
    private readonly read: () => number,
  ) {}

  lines(): string[] {
    return [`${this.name} ${this.read()}`];
  }
}

/** What somebody else counts or holds, read when it is asked for: a value for each of the labels. */
export class Observed implements Metric {
  constructor(
    readonly type: 'counter' | 'gauge',
    readonly name: string,
    readonly help: string,
    private readonly read: () => readonly (readonly [Labels, number])[],
  ) {}

  lines(): string[] {
    return this.read().map(([labels, value]) => `${this.name}${labelsOf(labels)} ${value}`);
  }
}

export class Histogram implements Metric {
  readonly type = 'histogram';
  private readonly counts: number[];
  private sum = 0;

  /** @param bounds upper ends of the buckets, rising */
  constructor(
    readonly name: string,
    readonly help: string,
    private readonly bounds: readonly number[],
  ) {
    this.counts = new Array<number>(bounds.length + 1).fill(0);
  }

  observe(value: number): void {
    const bucket = this.bounds.findIndex((bound) => value <= bound);
    this.counts[bucket < 0 ? this.bounds.length : bucket]!++;
    this.sum += value;
  }

  lines(): string[] {
    let total = 0;
    const buckets = this.counts.map((count, i) => {
      total += count;
      return `${this.name}_bucket{le="${this.bounds[i] ?? '+Inf'}"} ${total}`;
    });
    return [...buckets, `${this.name}_sum ${this.sum}`, `${this.name}_count ${total}`];
  }
}

export const exposition = (metrics: readonly Metric[]): string =>
  metrics
    .flatMap((metric) => [
      `# HELP ${metric.name} ${metric.help}`,
      `# TYPE ${metric.name} ${metric.type}`,
      ...metric.lines(),
    ])
    .join('\n')
    .concat('\n');
