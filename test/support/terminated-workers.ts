// Workers that are terminated in mid-prefill leave nothing behind.
import { runProgram } from './programs';

interface Held {
  tensors: number;
  waiting: number;
  used: number;
}

/** Terminates `rounds` workers one after the other; gives the resident memory after each. */
export async function terminateWorkers(rounds: number): Promise<readonly number[]> {
  const { printed } = await runProgram<{ before: Held; during: Held; after: Held; round: number; resident: number[] }>(
    'terminate-workers',
    [rounds],
  );
  expect(printed.round).toBe(rounds);
  expect(printed.during.tensors).toBeGreaterThan(printed.before.tensors);
  expect(printed.after).toEqual(printed.before);
  return printed.resident;
}

/** Slope of the least-squares line through values at 0, 1, 2 ... */
export function slope(values: readonly number[]): number {
  const middle = (values.length - 1) / 2;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const products = values.reduce((sum, value, i) => sum + (i - middle) * (value - mean), 0);
  return products / values.reduce((sum, _, i) => sum + (i - middle) ** 2, 0);
}
