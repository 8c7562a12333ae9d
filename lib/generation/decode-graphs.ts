// Recorded decode steps, one a batch size: a step is one write of the rows and one replay.
import { type DeviceName, deviceOf, type Graph } from '../tensor/device';
import { scope } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';

interface Outputs {
  readonly token: Tensor<'int32'>;
  readonly logprob: Tensor<'float32'>;
}

interface Recorded extends Outputs {
  readonly rows: Tensor<'int32'>;
  readonly offsets: Tensor<'int32'>;
  readonly graph: Graph;
}

/** Rows of the recorded steps: at most a third of a step's rows is empty above 16. */
const sizes = [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024];
/** Rows of a step; more take several. */
export const mostRows = sizes.at(-1)!;

export class DecodeGraphs {
  private readonly recorded = new Map<number, Recorded>();

  constructor(
    private readonly device: DeviceName,
    /** Enqueues a step for `rows` int32 [B] with one token each, `offsets` int32 [B + 1]. */
    private readonly enqueue: (rows: Tensor<'int32'>, offsets: Tensor<'int32'>) => Outputs,
  ) {}

  /** One decode step for at most 1024 slots; resolves with the sampled tokens and their log-probabilities. */
  async step(slots: readonly number[]): Promise<readonly [Int32Array, Float32Array]> {
    const size = sizes.find((one) => one >= slots.length)!;
    const step = this.recorded.get(size) ?? this.record(size);
    const rows = new Int32Array(size).fill(-1);
    rows.set(slots);
    step.rows.write(rows);
    step.graph.replay();
    return Promise.all([step.token.read(), step.logprob.read()]);
  }

  private record(size: number): Recorded {
    const { device } = this;
    const rows = Tensor.zeros({ dtype: 'int32', shape: [size], device });
    const offsets = Tensor.from(
      Int32Array.from({ length: size + 1 }, (_, i) => i),
      { dtype: 'int32', shape: [size + 1], device },
    );
    let outputs: Outputs | undefined;
    const graph = deviceOf(device).capture(() => {
      outputs = scope(() => ({ ...this.enqueue(rows, offsets) }));
    });
    const recorded = { rows, offsets, graph, ...outputs! };
    this.recorded.set(size, recorded);
    return recorded;
  }

  dispose(): void {
    for (const { graph, rows, offsets, token, logprob } of this.recorded.values()) {
      graph.dispose();
      for (const tensor of [rows, offsets, token, logprob]) tensor.dispose();
    }
    this.recorded.clear();
  }
}
