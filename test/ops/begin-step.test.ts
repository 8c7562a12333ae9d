// The step ops against the rules of a transaction: nothing counts before its commit.
import { LinattnError } from '../../lib/errors';
import { beginStep, stepRow, stepRowInts } from '../../lib/ops/begin-step';
import { commitStep } from '../../lib/ops/commit-step';
import { endStep } from '../../lib/ops/end-step';
import { Tensor } from '../../lib/tensor/tensor';

const ints = (values: number[]) => Tensor.from(values, { dtype: 'int32', shape: [values.length] });

function tableOf(rows: Partial<Record<keyof typeof stepRow, number>>[]): Tensor<'int32'> {
  const data = new Int32Array(rows.length * stepRowInts);
  rows.forEach((row, slot) => {
    for (const [name, value] of Object.entries(row)) data[slot * stepRowInts + stepRow[name as 'read']] = value;
  });
  const table = Tensor.make({ dtype: 'int32', shape: [rows.length, stepRowInts] }, false, true);
  table.write(data);
  return table;
}

async function rowOf(table: Tensor<'int32'>, slot: number) {
  const data = await table.read();
  return Object.fromEntries(
    Object.entries(stepRow).map(([name, index]) => [name, data[slot * stepRowInts + index]]),
  ) as Record<keyof typeof stepRow, number>;
}

const fresh = { read: -1, write: 4, spare: 5, live: 1, remaining: 3 };

describe('a prefill slice', () => {
  test('reads the committed half and counts once committed', async () => {
    const table = tableOf([fresh]);
    const rows = ints([0]);
    const offsets = ints([0, 7]);
    const step = beginStep(rows, offsets, table, false);
    expect(await step.readSlots.read()).toEqual(Int32Array.of(-1));
    expect(await step.writeSlots.read()).toEqual(Int32Array.of(4));
    expect(await step.positions.read()).toEqual(Int32Array.of(0));
    expect(await step.nextPositions.read()).toEqual(Int32Array.of(7));
    expect(await rowOf(table, 0)).toMatchObject({ read: -1, length: 0 });
    commitStep(rows, table, { offsets, after: step.positions });
    expect(await rowOf(table, 0)).toMatchObject({ read: 4, write: 5, length: 7 });
    beginStep(rows, offsets, table, false);
    commitStep(rows, table, { offsets, after: step.positions });
    expect(await rowOf(table, 0)).toMatchObject({ read: 5, write: 4, length: 14 });
  });

  test('whose op failed is not committed', async () => {
    const table = tableOf([fresh]);
    const bad = beginStep(ints([9]), ints([0, 1]), table, false);
    commitStep(ints([0]), table, { offsets: ints([0, 1]), after: bad.positions });
    await expect(bad.positions.read()).rejects.toMatchObject({ code: 'ERR_ARGUMENT', op: 'beginStep' });
    expect(await rowOf(table, 0)).toMatchObject({ read: -1, length: 0 });
  });
});

describe('a decode step', () => {
  test('is committed by the next one, and its token becomes the pending one', async () => {
    const table = tableOf([{ read: 4, write: 5, spare: 5, length: 9, token: 33, live: 1, remaining: 3 }]);
    const rows = ints([0]);
    const stopIds = ints([2, -1]).view([1, 2], 0, 2);
    const first = beginStep(rows, ints([0, 1]), table, true);
    expect(await first.tokens!.read()).toEqual(Int32Array.of(33));
    endStep(rows, ints([44]), stopIds, table, true);
    expect(await rowOf(table, 0)).toMatchObject({ read: 4, length: 9, token: 33, uncommitted: 1, live: 1 });
    const second = beginStep(rows, ints([0, 1]), table, true);
    expect(await second.tokens!.read()).toEqual(Int32Array.of(44));
    expect(await second.readSlots.read()).toEqual(Int32Array.of(5));
    expect(await second.positions.read()).toEqual(Int32Array.of(10));
  });

  test('after a stop id does nothing, and -1 leaves a row out', async () => {
    const table = tableOf([{ read: 4, write: 5, spare: 5, length: 9, token: 33, live: 1, remaining: 3 }]);
    const rows = ints([0, -1]);
    const stopIds = ints([2]).view([1, 1], 0, 1);
    endStep(rows, ints([2, 7]), stopIds, table, false);
    expect(await rowOf(table, 0)).toMatchObject({ token: 2, live: 0, remaining: 2 });
    const step = beginStep(rows, ints([0, 1, 2]), table, true);
    expect(await step.readSlots.read()).toEqual(Int32Array.of(-1, -1));
    expect(await step.writeSlots.read()).toEqual(Int32Array.of(-1, -1));
    endStep(rows, ints([5, 5]), stopIds, table, true);
    expect(await rowOf(table, 0)).toMatchObject({ token: 2, uncommitted: 0, length: 9 });
  });

  test('ends the sequence when no tokens remain', async () => {
    const table = tableOf([{ ...fresh, remaining: 1 }]);
    endStep(ints([0]), ints([5]), ints([-1]).view([1, 1], 0, 1), table, false);
    expect(await rowOf(table, 0)).toMatchObject({ token: 5, live: 0 });
  });
});

test('shapes are checked at the call', () => {
  const table = tableOf([fresh]);
  let error: unknown;
  try {
    beginStep(ints([0]), ints([0, 1, 2]), table, false);
  } catch (caught) {
    error = caught;
  }
  expect(LinattnError.isInstance(error)).toBe(true);
  expect(error).toMatchObject({
    code: 'ERR_SHAPE',
    op: 'beginStep',
    message: 'beginStep: offsets must be [N + 1] = [2], got [3]',
  });
});
