// What a process holds on the cpu device, and errors as values.
import { counters, devices, fence } from '../../lib/tensor/device';

export interface Held {
  tensors: number;
  used: number;
}

/** Once the commands so far are done. */
export async function held(): Promise<Held> {
  await fence('cpu');
  return { tensors: counters('cpu').tensors, used: devices()[0]!.memory().used };
}

/** What `action` threw or rejected with, or undefined. */
export async function thrown(action: () => unknown): Promise<unknown> {
  try {
    await action();
  } catch (error) {
    return error;
  }
  return undefined;
}
