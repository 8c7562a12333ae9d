// Recorded decode steps, one a batch size: a step is one replay and one read, and one write of the rows where others
// than in the step before decode.
import { type DeviceName, deviceOf, type Graph } from '../tensor/device';
import { scope } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';

interface Recorded {
  readonly rows: Tensor<'int32'>;
  /** What `rows` holds. */
  readonly slots: Int32Array;
  readonly offsets: Tensor<'int32'>;
  readonly graph: Graph;
  readonly sampled: Tensor<'int32'>;
}

/** Rows of the recorded steps: at most a third of a step's rows is empty above 16. */
const sizes = [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024];
/** Rows of a step; more take several. */
export const mostRows = sizes.at(-1)!;

/** The values of sample's `sampled` int32 [2, N], read in one go. */
export async function readSampled(
  sampled: Tensor<'int32'>,
): Promise<readonly [tokens: Int32Array, logprobs: Float32Array]> {
  const values = await sampled.read();
  const count = values.length / 2;
  return [values.subarray(0, count), new Float32Array(values.buffer, 4 * count, count)];
}

export class DecodeGraphs {
  private readonly recorded = new Map<number, Recorded>();

  constructor(
    private readonly device: DeviceName,
    /** Enqueues a step for `rows` int32 [B] with one token each, `offsets` int32 [B + 1]; returns sample's `sampled`. */
    private readonly enqueue: (rows: Tensor<'int32'>, offsets: Tensor<'int32'>) => Tensor<'int32'>,
  ) {}

  /** One decode step for at most 1024 slots; resolves with the sampled tokens and their log-probabilities. */
  async step(slots: readonly number[]): Promise<readonly [Int32Array, Float32Array]> {
    const size = sizes.find((one) => one >= slots.length)!;
    const step = this.recorded.get(size) ?? this.record(size);
    const rows = new Int32Array(size).fill(-1);
    rows.set(slots);
    if (rows.some((slot, i) => slot !== step.slots[i])) {
      step.rows.write(rows);
      step.slots.set(rows);
    }
    step.graph.replay();
    return readSampled(step.sampled);
  }

  private record(size: number): Recorded {
    const { device } = this;
    const slots = new Int32Array(size).fill(-1);
    const rows = Tensor.from(slots, { dtype: 'int32', shape: [size], device });
    const offsets = Tensor.from(
      Int32Array.from({ length: size + 1 }, (_, i) => i),
      { dtype: 'int32', shape: [size + 1], device },
    );
    let sampled: Tensor<'int32'> | undefined;
    const graph = deviceOf(device).capture(() => {
      sampled = scope(() => this.enqueue(rows, offsets));
    });
    const recorded = { rows, slots, offsets, graph, sampled: sampled! };
    this.recorded.set(size, recorded);
    return recorded;
  }

  dispose(): void {
    for (const { graph, rows, offsets, sampled } of this.recorded.values()) {
      graph.dispose();
      for (const tensor of [rows, offsets, sampled]) tensor.dispose();
    }
    this.recorded.clear();
  }
}
