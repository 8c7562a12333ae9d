// capture and replay, and scopes.
import { add } from '../../lib/ops/add';
import { beginStep, stepRowInts } from '../../lib/ops/begin-step';
import { commitStep } from '../../lib/ops/commit-step';
import { deviceOf } from '../../lib/tensor/device';
import { scope } from '../../lib/tensor/scope';
import { Tensor } from '../../lib/tensor/tensor';
import { device } from '../support/device';
import { collectForgotten, held } from '../support/held';

const tested = deviceOf(device);
const ints = (values: number[]) => Tensor.from(values, { dtype: 'int32', shape: [values.length] });

function sequence() {
  const table = Tensor.from(new Int32Array(stepRowInts).fill(0), { dtype: 'int32', shape: [1, stepRowInts] });
  return { table, rows: ints([0]), offsets: ints([0, 3]) };
}

describe('capture', () => {
  test('records without running, and replay runs it each time', async () => {
    const { table, rows, offsets } = sequence();
    const graph = tested.capture(() =>
      scope(() => {
        const step = beginStep(rows, offsets, table, false);
        commitStep(rows, table, { offsets, after: step.positions });
      }),
    );
    expect((await table.read())[2]).toBe(0);
    for (let i = 0; i < 3; i++) graph.replay();
    expect((await table.read())[2]).toBe(9);
    graph.dispose();
    graph.dispose();
    expect(() => graph.replay()).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
  });

  test('keeps outside tensors alive, and gives all memory back', async () => {
    await collectForgotten();
    const before = await held();
    const { table, rows, offsets } = sequence();
    const made: Tensor[] = [];
    const graph = tested.capture(() => {
      const step = beginStep(rows, offsets, table, false);
      made.push(...(Object.values(step) as Tensor[]));
    });
    for (const tensor of [rows, offsets]) tensor.dispose();
    graph.replay();
    expect(await made[3]!.read()).toEqual(Int32Array.of(3));
    graph.dispose();
    await expect(made[3]!.read()).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
    for (const tensor of [...made, table]) tensor.dispose();
    expect(await held()).toEqual(before);
  });

  test('zeros that a recording makes or is the first to use are zeros, and outlive it', async () => {
    await collectForgotten();
    const before = await held();
    const shape = [64, 16];
    const ones = Tensor.from(new Float32Array(64 * 16).fill(1), { dtype: 'float32', shape });
    const outside = Tensor.zeros({ dtype: 'float32', shape: [128, 16] });
    const made: Tensor<'float32'>[] = [];
    const graph = tested.capture(() => {
      scope(() => void add({ a: ones, b: ones })); // its place in the arena is free again
      const inside = Tensor.zeros({ dtype: 'float32', shape });
      const part = outside.view(shape, 64 * 16, 16);
      made.push(inside, part, add({ a: inside, b: ones }), add({ a: part, b: ones }));
    });
    const [inside, part, ...sums] = made;
    for (let i = 0; i < 3; i++) {
      graph.replay();
      for (const sum of sums) expect(await sum.read()).toEqual(await ones.read());
    }
    graph.dispose();
    for (const zeros of [inside!, part!]) expect(await zeros.read()).toEqual(new Float32Array(64 * 16));
    expect(await outside.read()).toEqual(new Float32Array(128 * 16));
    for (const tensor of [ones, outside, ...made]) tensor.dispose();
    expect(await held()).toEqual(before);
  });

  test('refuses a promise, a read, a write and a second capture', async () => {
    const { table } = sequence();
    expect(() => tested.capture((async () => undefined) as () => void)).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT' }),
    );
    expect(() => tested.capture(() => table.write(new Int32Array(1)))).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT' }),
    );
    expect(() => tested.capture(() => void tested.capture(() => undefined))).toThrow(
      expect.objectContaining({ code: 'ERR_BUSY' }),
    );
    let reading: Promise<unknown> | undefined;
    tested.capture(() => {
      reading = table.read();
    });
    await expect(reading).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    expect((await table.read()).length).toBe(stepRowInts);
  });
});

describe('scope', () => {
  test('frees what it does not return', () => {
    let inner: Tensor | undefined;
    const kept = scope(() => {
      inner = ints([1]);
      return { a: ints([2]), list: 3 };
    });
    expect(() => inner!.live()).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
    expect(kept.a.live()).toBeGreaterThan(0);
    kept.a.dispose();
  });

  test('what an inner scope returns belongs to the outer one, and what was disposed to none', async () => {
    await collectForgotten();
    const { tensors } = await held();
    let inner: Tensor | undefined;
    const kept = scope(() => {
      const [twice] = scope(() => {
        const tensor = ints([1]);
        ints([2]).dispose();
        return [tensor, tensor];
      });
      inner = scope(() => ints([3]));
      return { twice };
    });
    expect(kept.twice!.live()).toBeGreaterThan(0);
    expect(() => inner!.live()).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
    kept.twice!.dispose();
    expect((await held()).tensors).toBe(tensors);
  });

  test('frees all when fn throws, and refuses a promise', () => {
    let inner: Tensor | undefined;
    expect(() =>
      scope(() => {
        inner = ints([1]);
        throw new Error('stop');
      }),
    ).toThrow('stop');
    expect(() => inner!.live()).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
    expect(() => scope((async () => 1) as () => never)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
  });
});
