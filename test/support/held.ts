// What a process holds on the device of the tests, and errors as values.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { counters, deviceOf } from '../../lib/tensor/device';
import { device, settled } from './device';

export interface Held {
  tensors: number;
  used: number;
}

/** Once the commands so far are done: frees are commands too. */
export async function held(): Promise<Held> {
  await settled();
  return { tensors: counters(device).tensors, used: deviceOf(device).memory().used };
}

/** Bytes, once the commands so far are done. */
export const used = async (): Promise<number> => (await held()).used;

/**
 * For a beforeAll: frees what earlier test files of this process left to the garbage collector, which would otherwise
 * come back at any time and be taken for memory that the tests at hand gave back.
 */
export async function collectForgotten(): Promise<void> {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  for (let last = -1, same = 0; same < 3; ) {
    collect();
    await new Promise((resolve) => setImmediate(resolve));
    const { tensors } = await held();
    same = tensors === last ? same + 1 : 0;
    last = tensors;
  }
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
