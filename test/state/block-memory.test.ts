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
  const memory = new BlockMemory(() => () => {});
  const most = Array.from({ length: 2 * reservedBlocks }, () => memory.whole()!);
  for (const one of most) memory.give(one);
  const known = new Set(most.map(({ buffer }) => buffer));
  const again = Array.from({ length: 2 * reservedBlocks }, () => memory.take(block).buffer);
  expect(again.filter((buffer) => known.has(buffer))).toHaveLength(reservedBlocks);
  expect(new BlockMemory().whole()).toBeUndefined();
});

test('of two loads at once the reserved blocks are those that stay', () => {
  const pinned = new Set<ArrayBufferLike>();
  const memory = new BlockMemory(({ buffer }) => {
    pinned.add(buffer);
    return () => pinned.delete(buffer);
  });
  const two = Array.from({ length: 2 * reservedBlocks }, () => memory.whole()!);
  for (const one of two.reverse()) memory.give(one);
  const again = Array.from({ length: reservedBlocks }, () => memory.whole()!.buffer);
  expect(new Set(again)).toEqual(pinned);
  memory.dispose();
  expect(pinned.size).toBe(0);
});

test('a reserved block cannot be transferred, for its pages are pinned', () => {
  const block = new BlockMemory(() => () => {}).whole()!;
  try {
    structuredClone(block.buffer, { transfer: [block.buffer as ArrayBuffer] });
  } catch {
    // Node 21 and later refuse; Node 20 copies.
  }
  expect(block.buffer.byteLength).toBeGreaterThan(2 ** 24);
});

test('a value is kept where it is, or copied to where it fits', () => {
  const memory = new BlockMemory(() => () => {});
  const own = memory.whole()!;
  const part = own.subarray(3, 9);
  expect(memory.keep(part, own)).toBe(part);
  const value = new Uint8Array([1, 2, 3]);
  const copy = memory.keep(value, own);
  expect([copy.buffer, ...copy]).toEqual([own.buffer, 1, 2, 3]);
  const small = memory.take(2 ** 16).subarray(0, 2);
  const other = memory.keep(value, small);
  value.fill(9);
  expect([...other]).toEqual([1, 2, 3]);
  expect(other.buffer === value.buffer).toBe(false);
});
