// The CUDA device: copies, graphs, and what remains after each kind of failure.
import { activation } from '../../lib/ops/activation';
import { embedding } from '../../lib/ops/embedding';
import { gatherRows } from '../../lib/ops/gather-rows';
import { Weight } from '../../lib/ops/weight';
import { deviceOf, devices, fence, timed } from '../../lib/tensor/device';
import { scope } from '../../lib/tensor/scope';
import { Tensor } from '../../lib/tensor/tensor';
import { thrown } from '../support/held';
import { runProgram } from '../support/programs';

const cuda = deviceOf('cuda');
const device = cuda.name;
const floats = (values: readonly number[] | Float32Array) =>
  Tensor.from(values, { dtype: 'float32', shape: [values.length], device });

test('is one of the devices, with its memory', () => {
  expect(devices().map(({ name }) => name)).toContain('cuda:0');
  expect(cuda.unavailable).toBeUndefined();
  expect(cuda.description).toMatch(/compute capability \d+\.\d+/);
  expect(cuda.memory().total).toBeGreaterThan(2 ** 30);
});

test('large copies, in and out and by view, come back as they went', async () => {
  const data = Float32Array.from({ length: 20_000_003 }, (_, i) => i % 16_777_213);
  const x = floats(data);
  expect(Buffer.compare(Buffer.from((await x.read()).buffer), Buffer.from(data.buffer))).toBe(0);
  const strided = x.view([1000, 3], 5, 2000);
  const wanted = Float32Array.from({ length: 3000 }, (_, i) => 5 + Math.floor(i / 3) * 2000 + (i % 3));
  expect(await strided.read()).toEqual(wanted);
  x.write(Float32Array.of(-1, -2), 19_999_000);
  expect((await x.read()).subarray(19_998_999, 19_999_003)).toEqual(
    Float32Array.of(data[19_998_999]!, -1, -2, data[19_999_002]!),
  );
  x.dispose();
});

test('many small reads in flight each get their own values', async () => {
  const tensors = Array.from({ length: 500 }, (_, i) => floats([i, -i]));
  const read = await Promise.all(tensors.map((tensor) => tensor.read()));
  expect(read.map(([first]) => first)).toEqual(tensors.map((_, i) => i));
  for (const tensor of tensors) tensor.dispose();
});

test('a graph gives what its calls give, with the values of the moment', async () => {
  const x = floats([0, 1, 2]);
  let out: Tensor<'float32'> | undefined;
  const graph = cuda.capture(() => {
    out = scope(() => activation({ x: activation({ x, activation: 'relu' }), activation: 'silu' }));
  });
  for (let i = 0; i < 6; i++) {
    x.write(Float32Array.of(i, -i, 2));
    graph.replay();
    const direct = scope(() => activation({ x: activation({ x, activation: 'relu' }), activation: 'silu' }));
    expect(await out!.read()).toEqual(await direct.read());
    direct.dispose();
  }
  graph.dispose();
  x.dispose();
});

test('memory that is not there is an error of that tensor, and the device goes on', async () => {
  const { total, used } = cuda.memory();
  const many = Array.from({ length: 6 }, () =>
    Tensor.zeros({ dtype: 'uint8', shape: [Math.floor(total / 3)], device }),
  );
  for (const tensor of many) tensor.write(Uint8Array.of(1)); // memory comes with the first use
  const errors = await Promise.all(many.map((tensor) => thrown(() => tensor.wait())));
  expect(errors.filter((error) => error !== undefined).length).toBeGreaterThanOrEqual(3);
  for (const error of errors) {
    if (error !== undefined) expect(error).toMatchObject({ code: 'ERR_OUT_OF_MEMORY' });
  }
  for (const tensor of many) tensor.dispose();
  const more = Tensor.zeros({ dtype: 'uint8', shape: [2 * total], device });
  more.write(Uint8Array.of(1));
  expect(await thrown(() => more.wait())).toMatchObject({ code: 'ERR_OUT_OF_MEMORY' });
  more.dispose();
  await fence(device);
  expect(cuda.memory().used).toBeLessThanOrEqual(used);
  expect(cuda.memory().reserved).toBeLessThan(total / 3); // looking for memory gave back what was kept for reuse
  const after = floats([3]);
  expect(await after.read()).toEqual(Float32Array.of(3));
  after.dispose();
});

test('memory goes back to the driver when nothing is in use, but for a little', async () => {
  const { printed } = await runProgram('cuda-idle');
  expect(printed).toEqual({ held: 200, last: 200, none: 0, little: 40 });
});

test('what a kernel finds wrong rejects the read, and the device goes on', async () => {
  const weight = Weight.zeros([5, 8], 'float32', { device });
  const ids = (values: number[]) => Tensor.from(values, { dtype: 'int32', shape: [values.length], device });
  for (let i = 0; i < 3; i++) {
    const message = 'embedding: ids[1] must be in [0, 5), got 7';
    await expect(embedding({ ids: ids([1, 7]), weight }).read()).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
      op: 'embedding',
      message,
    });
    expect(await embedding({ ids: ids([1, 4]), weight }).read()).toEqual(new Float32Array(16));
  }
});

test('a read is told what was reported before it, never what was enqueued behind it', async () => {
  const weight = Weight.zeros([5, 8], 'float32', { device });
  const look = (id: number) =>
    scope(() => embedding({ ids: Tensor.from([id], { dtype: 'int32', shape: [1], device }), weight }));
  const settledAs: string[] = [];
  for (let i = 0; i < 100; i++) {
    const reads = [look(1).read(), look(9).read(), look(2).read()];
    settledAs.push((await Promise.allSettled(reads)).map(({ status }) => status).join(' '));
  }
  expect(settledAs).toEqual(settledAs.map(() => 'fulfilled rejected fulfilled'));
});

test('a read is told of all ops that reported before it, and the read after it of none', async () => {
  const weight = Weight.zeros([5, 8], 'float32', { device });
  const ids = Tensor.from([1, 9], { dtype: 'int32', shape: [2], device });
  const [embedded, gathered] = scope(() => {
    const x = Tensor.zeros({ dtype: 'float32', shape: [2, 1], device });
    return [embedding({ ids, weight }), gatherRows({ x, rows: ids })];
  });
  const [both, none] = await Promise.allSettled([embedded!.read(), gathered!.read()]);
  expect(both).toMatchObject({
    reason: {
      code: 'ERR_ARGUMENT',
      op: 'embedding',
      message: 'embedding: ids[1] must be in [0, 5), got 9; gatherRows: rows[1] must be in [0, 2), got 9',
    },
  });
  expect(none).toMatchObject({ status: 'fulfilled' });
});

test("time by the device's clock", async () => {
  const x = Tensor.zeros({ dtype: 'float32', shape: [1 << 22], device });
  const milliseconds = await timed(device, () => scope(() => void activation({ x, activation: 'silu' })));
  expect(milliseconds).toBeGreaterThan(0);
  expect(milliseconds).toBeLessThan(10_000);
  x.dispose();
});

test('a process that forgets everything, and workers that are terminated, end well', async () => {
  const { printed } = await runProgram<{ workers: number }>('cuda-workers', [10]);
  expect(printed).toEqual({ workers: 10, read: 7 });
});

const emulated = cuda.description.startsWith('emulator');
test(`after an asynchronous fault the device is lost, the process is not${emulated ? '' : ' (emulator only)'}`, async () => {
  if (!emulated) return; // a real fault cannot be asked for
  const env = { LINATTN_EMULATOR_LOSE: '5' }; // each read is a kernel beside the op's
  const { printed } = await runProgram<{ codes: string[]; writes: string[]; cpu: number }>('cuda-lost', [], [], env);
  expect(printed.codes.slice(0, 2)).toEqual(['', '']);
  expect(printed.codes.slice(3).every((code) => code === 'ERR_DEVICE_LOST')).toBe(true);
  expect(printed.writes).toEqual(['', 'ERR_DEVICE_LOST']);
  expect(printed.cpu).toBe(4);
});
