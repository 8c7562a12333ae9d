// Pins memory of this process, so that a device copies from it without a copy on the way.
import { addon, checked } from '../binding/load';
import { type DeviceName, deviceIndex } from '../tensor/device';
import { Tensor } from '../tensor/tensor';
import type { Pin } from './block-memory';

/** Where the memory cannot be pinned it is copied as any other. */
export const pinFor =
  (device: DeviceName): Pin =>
  (memory) => {
    const pin = checked(addon.pin(deviceIndex(device), memory));
    return () => {
      checked(addon.unpin(pin));
    };
  };

/** Resolves when all that was to be pinned for a device is: a write comes after it, and asks nothing of what ops found. */
export async function pinned(device: DeviceName): Promise<void> {
  const tensor = Tensor.zeros({ dtype: 'int32', shape: [1], device });
  try {
    await tensor.writeHeld(new Uint8Array(4), 0);
  } finally {
    tensor.dispose();
  }
}
