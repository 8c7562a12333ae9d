// What a GPU says of wrong sequences is what the cpu says, word for word.
import { causalConv } from '../../lib/ops/causal-conv';
import { Sequences } from '../../lib/ops/sequences';
import { type DeviceName, deviceOf } from '../../lib/tensor/device';
import { Tensor } from '../../lib/tensor/tensor';
import { thrown } from '../support/held';

interface Values {
  offsets: number[];
  readSlots: number[];
  writeSlots: number[];
}

async function errorOn(
  device: DeviceName,
  { offsets, readSlots, writeSlots }: Values,
  slots: number,
): Promise<unknown> {
  const ints = (values: number[]) => Tensor.from(values, { dtype: 'int32', shape: [values.length], device });
  const zeros = (shape: number[]) => Tensor.zeros({ dtype: 'float32', shape, device });
  const rows = readSlots.length;
  const tokens = 2 * rows;
  const sequences = new Sequences({
    ...{ rows, tokens, maxTokens: tokens, singleRows: 0 },
    ...{ offsets: ints(offsets), readSlots: ints(readSlots), writeSlots: ints(writeSlots) },
    positions: ints(readSlots.map(() => 0)),
  });
  const state = zeros([slots, 1, 1]);
  const out = causalConv({ x: zeros([tokens, 1]), weight: zeros([1, 2]), state, sequences });
  return thrown(() => out.read());
}

const many = (change: (values: Values) => void): Values => {
  const own = Array.from({ length: 1500 }, (_, n) => n);
  const values = { offsets: [...own, 1500].map((n) => 2 * n), readSlots: own.slice(), writeSlots: own.slice() };
  change(values);
  return values;
};

test.each<[string, Values, number]>([
  ['right', { offsets: [0, 3, 4], readSlots: [0, -1], writeSlots: [0, 3] }, 4],
  ['a first offset', { offsets: [1, 3, 4], readSlots: [0, 1], writeSlots: [0, 1] }, 4],
  ['falling offsets', { offsets: [0, 5, 4], readSlots: [0, 1], writeSlots: [0, 1] }, 4],
  ['a last offset', { offsets: [0, 2, 3], readSlots: [0, 1], writeSlots: [0, 1] }, 4],
  ['a slot to write', { offsets: [0, 2, 4], readSlots: [9, 1], writeSlots: [0, 4] }, 4],
  ['a slot to read', { offsets: [0, 2, 4], readSlots: [0, -2], writeSlots: [0, 1] }, 4],
  ['written twice', { offsets: [0, 2, 4, 6], readSlots: [-1, -1, -1], writeSlots: [3, 2, 3] }, 4],
  ['written by another', { offsets: [0, 2, 4], readSlots: [0, 0], writeSlots: [0, 1] }, 4],
  ['many that are right', many(() => undefined), 1500],
  ['many, in a large pool', many(({ writeSlots }) => (writeSlots[1400] = 7)), 20000],
  ['many, two read what others write', many(({ readSlots }) => readSlots.splice(1200, 2, 3, 4)), 20000],
])('%s', async (_, values, slots) => {
  const expected = await errorOn('cpu', values, slots);
  const actual = await errorOn(deviceOf('cuda').name, values, slots);
  const message = (error: unknown) => (error as Error | undefined)?.message;
  expect(message(actual)).toBe(message(expected));
});
