// Memory for blocks: used again once it is given back, and never in two hands.
import { BlockMemory, reservedBlocks } from '../../lib/state/block-memory';

const block = 2 ** 24 + 8;

test('what is given back, or a part of it, is used again', () => {
  const memory = new BlockMemory();
  const first = memory.take(block);
  expect(first).toHaveLength(block);
  expect(memory.take(block).buffer).not.toBe(first.buffer);
  memory.give(first.subarray(5, 9));
  expect(memory.take(block - 1).buffer).toBe(first.buffer);
  expect(memory.take(block).buffer).not.toBe(first.buffer);
});

test('memory given back twice, of others, or gone to another thread is not used', () => {
  const memory = new BlockMemory();
  const first = memory.take(block);
  memory.give(first);
  memory.give(first);
  expect(memory.take(block).buffer).toBe(first.buffer);
  expect(memory.take(block).buffer).not.toBe(first.buffer);
  const foreign = new Uint8Array(block);
  memory.give(foreign);
  expect(memory.take(block).buffer).not.toBe(foreign.buffer);
  const sent = memory.take(block);
  structuredClone(sent.buffer, { transfer: [sent.buffer as ArrayBuffer] });
  memory.give(sent);
  expect(memory.take(block)).toHaveLength(block);
});

test('reserved blocks are as many as a load takes, and no more stay', () => {
  const memory = new BlockMemory('cpu');
  const most = Array.from({ length: 2 * reservedBlocks }, () => memory.whole()!);
  for (const one of most) memory.give(one);
  const known = new Set(most.map(({ buffer }) => buffer));
  const again = Array.from({ length: 2 * reservedBlocks }, () => memory.take(block).buffer);
  expect(again.filter((buffer) => known.has(buffer))).toHaveLength(reservedBlocks);
  expect(new BlockMemory().whole()).toBeUndefined();
});
