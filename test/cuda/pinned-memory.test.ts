// Writes out of pinned memory: they come as they went, hold their memory until the device has it, and end with their thread.
import { activation } from '../../lib/ops/activation';
import { embedding } from '../../lib/ops/embedding';
import { Weight } from '../../lib/ops/weight';
import { BlockMemory, reservedBlocks } from '../../lib/state/block-memory';
import { pinFor } from '../../lib/state/pin';
import { deviceOf } from '../../lib/tensor/device';
import { scope } from '../../lib/tensor/scope';
import { Tensor } from '../../lib/tensor/tensor';
import { runProgram } from '../support/programs';

const device = 'cuda';
const blockBytes = 2 ** 24;

const pool = (blocks: number) =>
  Tensor.make({ dtype: 'int32', shape: [blocks, blockBytes / 4], device }, true, true) as Tensor<'int32'>;

/** What each block is full of; NaN where its bytes differ. */
async function fills(tensor: Tensor<'int32'>): Promise<number[]> {
  const read = new Uint8Array((await tensor.read()).buffer);
  return Array.from({ length: read.length / blockBytes }, (_, i) => {
    const block = read.subarray(i * blockBytes, (i + 1) * blockBytes);
    const same = Buffer.alloc(blockBytes, block[0]);
    return Buffer.compare(block, same) === 0 ? block[0]! : Number.NaN;
  });
}

/** Keeps the device busy for some milliseconds; the emulator, which runs what it is given at once, would be for minutes. */
function busy(): void {
  if (deviceOf(device).description.startsWith('emulator')) return;
  const x = Tensor.zeros({ dtype: 'float32', shape: [2 ** 22], device });
  for (let i = 0; i < 20; i++) scope(() => void activation({ x, activation: 'silu' }));
  x.dispose();
}

test('memory is free again only when the device has it', async () => {
  const memory = new BlockMemory(pinFor(device));
  const rounds = 3 * reservedBlocks;
  const tensor = pool(rounds);
  busy();
  let next = 0;
  const lane = async () => {
    while (next < rounds) {
      const i = next++;
      const block = memory.take(blockBytes).fill(i + 1);
      await tensor.writeHeld(block, i * blockBytes);
      block.fill(255);
      memory.give(block);
      busy();
    }
  };
  await Promise.all(Array.from({ length: reservedBlocks }, lane));
  expect(await fills(tensor)).toEqual(Array.from({ length: rounds }, (_, i) => i + 1));
  memory.dispose();
  tensor.dispose();
});

test('parts of a block, from any of its bytes to any', async () => {
  const memory = new BlockMemory(pinFor(device));
  const block = memory.whole()!;
  for (let i = 0; i < block.length; i++) block[i] = i % 251;
  const wanted = new Uint8Array(blockBytes);
  const tensor = pool(1);
  const writes: Promise<void>[] = [];
  const lengths = [1, 3, 4096, 65_537, 2 ** 20 + 5];
  let [from, to] = [0, 1];
  for (const length of lengths) {
    writes.push(tensor.writeHeld(block.subarray(from, from + length), to));
    wanted.set(block.subarray(from, from + length), to);
    [from, to] = [from + length + 13, to + length + 7];
  }
  writes.push(tensor.writeHeld(block.subarray(-9), to)); // its last bytes
  wanted.set(block.subarray(-9), to);
  await Promise.all(writes);
  expect(Buffer.compare(new Uint8Array((await tensor.read()).buffer), wanted)).toBe(0);
  memory.dispose();
  tensor.dispose();
});

test('dispose while writes are on their way, before memory was pinned, and of memory that went to another thread', async () => {
  const memory = new BlockMemory(pinFor(device));
  const tensor = pool(reservedBlocks);
  busy();
  const writes = Array.from({ length: reservedBlocks }, (_, i) =>
    tensor.writeHeld(memory.take(blockBytes).fill(i + 1), i * blockBytes),
  );
  memory.dispose();
  await Promise.all(writes);
  expect(await fills(tensor)).toEqual(writes.map((_, i) => i + 1));
  busy();
  new BlockMemory(pinFor(device)).dispose();
  const other = new BlockMemory(pinFor(device));
  const sent = other.take(blockBytes);
  const { byteLength } = structuredClone(sent.buffer, { transfer: [sent.buffer as ArrayBuffer] });
  expect(byteLength).toBeGreaterThan(blockBytes);
  await tensor.writeHeld(new Uint8Array(blockBytes).fill(9), 0); // perhaps where that was
  other.dispose();
  expect((await fills(tensor))[0]).toBe(9);
  tensor.dispose();
});

test('what a kernel found before is told by the read of its result, not by a write', async () => {
  const memory = new BlockMemory(pinFor(device));
  const tensor = pool(1);
  const ids = Tensor.from([7], { dtype: 'int32', shape: [1], device });
  const row = embedding({ ids, weight: Weight.zeros([5, 8], 'float32', { device }) });
  await tensor.writeHeld(memory.take(blockBytes).fill(1), 0);
  await expect(row.read()).rejects.toMatchObject({ code: 'ERR_ARGUMENT', op: 'embedding' });
  memory.dispose();
  tensor.dispose();
});

test('workers that are terminated while they write', async () => {
  const { printed } = await runProgram<{ workers: number }>('pinned-writes', [5]);
  expect(printed).toEqual({ workers: 5, isRight: true });
});
