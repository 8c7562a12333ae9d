// Ops that a graph has recorded, which a GPU may run as fewer kernels, against the same ops one by one.
import { deviceOf } from '../../lib/tensor/device';
import { arrayFrom } from '../../lib/tensor/dtype';
import { scope } from '../../lib/tensor/scope';
import type { Tensor } from '../../lib/tensor/tensor';
import { rounded, seeded, tensorOf } from './arrays';
import { device } from './device';
import { bitsOf } from './linear-attention';

export type Half = 'bfloat16' | 'float16';

/**
 * What `enqueue` makes of states, and these, after three runs: the first replay runs op by op, later ones as one graph.
 * Between them what it made is overwritten, so that nothing is right because it was.
 */
export async function expectSameBits(states: () => Tensor[], enqueue: (states: Tensor[]) => Tensor[]): Promise<void> {
  const runs = [0, 1, 2];
  const plain = states();
  const made = runs.map(() => enqueue(plain));
  const wanted = await bitsOf([...made.at(-1)!, ...plain]);
  const own = states();
  let recorded: Tensor[] = [];
  const graph = deviceOf(device).capture(() => {
    recorded = scope(() => enqueue(own));
  });
  for (const _ of runs) {
    for (const tensor of recorded) {
      const size = tensor?.shape.reduce((all, one) => all * one, 1);
      tensor?.write(arrayFrom(tensor.dtype, new Float64Array(size).fill(7)));
    }
    graph.replay();
  }
  const got = await bitsOf([...recorded, ...own]);
  graph.dispose();
  expect(got.length).toBeGreaterThan(0);
  expect(got.equals(wanted)).toBe(true);
}

export const normal = <D extends Half | 'float32'>(seed: number, shape: number[], dtype: D) =>
  tensorOf(rounded(seeded(seed).normal(shape), dtype), dtype);
