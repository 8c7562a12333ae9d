// Which device the tests run on: LINATTN_DEVICE, as everywhere. One test body serves all; what must be the same bits on the
// cpu may differ on a GPU within what the test says.
import { defaultDevice, fence } from '../../lib/tensor/device';
import type { Tensor } from '../../lib/tensor/tensor';
import { readNd, relativeError } from './arrays';
import { bitsOf } from './linear-attention';

export const device = defaultDevice();
export const onCuda = device !== 'cpu';

/**
 * Logits of the same tokens that were read in other slices, or in other company: the same bits on the cpu; on a GPU, whose
 * sums then run in another order, within a tenth of the 1e-4 that separates float32 logits of two implementations.
 */
export function expectSameLogits(actual: Float32Array, wanted: Float32Array): void {
  if (!onCuda) {
    expect(actual).toEqual(wanted);
    return;
  }
  const vector = (data: Float32Array) => ({ shape: [data.length], data: Float64Array.from(data) });
  expect(relativeError(vector(actual), vector(wanted))).toBeLessThanOrEqual(1e-5);
}

/** Resolves when every command enqueued so far is done. */
export const settled = (): Promise<void> => fence(device);

/** Tensors that hold the same bits; on a GPU values within this relative error, all together. */
export async function expectSameTensors(
  made: readonly (Tensor | undefined)[],
  wanted: readonly (Tensor | undefined)[],
  onGpu: number,
): Promise<void> {
  if (!onCuda || onGpu === 0) {
    expect((await bitsOf(made)).equals(await bitsOf(wanted))).toBe(true);
    return;
  }
  const valuesOf = async (tensors: readonly (Tensor | undefined)[]) => {
    const parts = await Promise.all(tensors.filter((tensor) => tensor !== undefined).map(readNd));
    const data = Float64Array.from(parts.flatMap((part) => [...part.data]));
    return { shape: [data.length], data };
  };
  expect(relativeError(await valuesOf(made), await valuesOf(wanted))).toBeLessThanOrEqual(onGpu);
}
