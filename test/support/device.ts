// Which device the tests run on: LINATTN_DEVICE, as everywhere. One test body serves all; what must be the same bits on the
// cpu may differ on a GPU within what the test says.
import { defaultDevice, fence } from '../../lib/tensor/device';
import { relativeError } from './arrays';

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
