// Which device the tests run on: LINATTN_DEVICE, as everywhere. One test body serves all; what must be the same bits on the
// cpu may differ on a GPU within what the test says.
import { defaultDevice, fence } from '../../lib/tensor/device';

export const device = defaultDevice();
export const onCuda = device !== 'cpu';

/** Resolves when every command enqueued so far is done. */
export const settled = (): Promise<void> => fence(device);
