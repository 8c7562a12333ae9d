// A state of several blocks, whose pages lie across their borders: what is read back is what was there, and nothing of what
// lies behind the last token.
import { KvGroup } from '../../lib/layers/layer';
import { MemorySource } from '../../lib/state/byte-source';
import { contentOf, readContent } from '../../lib/state/checkpoint-content';
import { SequenceStore } from '../../lib/state/sequence-store';
import { FramedReader, framed } from '../../lib/state/snapshot-format';
import { Tensor } from '../../lib/tensor/tensor';
import { seeded } from '../support/arrays';
import { device } from '../support/device';
import { collectForgotten, used } from '../support/held';

const vocabularySize = 1001;
const length = 2500; // 40 pages, of which the last one has 4 tokens
const rows = 300;
const elements = rows * 19;

interface Part {
  readonly shape: readonly number[];
  /** In elements of the row. */
  readonly offset: number;
}

function makeStore(parts: readonly Part[], elements: number): SequenceStore {
  const groups = [new KvGroup(0), new KvGroup(100)];
  for (let i = 0; i < 4; i++) groups[0]!.add(2, 256);
  groups[1]!.add(1, 24);
  const tensor = Tensor.zeros({ dtype: 'float32', shape: [1], device });
  const named = parts.map((part, i) => ({ ...part, name: `part ${i}`, tensor, bind: () => {} }));
  const layout = { elements, parts: named };
  return new SequenceStore({ ...layout, bind: () => {} } as never, { groups } as never, {
    ...{ device, sequences: 1, states: 6, vocabularySize, contextLength: 4096, stepTokens: 64 },
    ...{ kvDType: 'bfloat16', kvCapacityTokens: 3 * 4096 },
  });
}

test.each(['float32', 'int8'] as const)('state in %s', async (stateDtype) => {
  await collectForgotten();
  const before = await used();
  const store = makeStore([{ shape: [rows, 19], offset: 0 }], elements);
  const random = seeded(9);
  const logits = Float32Array.from({ length: vocabularySize }, () => random.int(1000));
  const made = Tensor.from(logits, { dtype: 'float32', shape: [1, vocabularySize], device });
  const checkpoint = store.emptyCheckpoint(length, made);
  store.states.write(checkpoint.slot, new Float32Array(elements).fill(127)); // exact in int8
  const written = await Promise.all(
    store.pagePools.map((pool, group) =>
      Promise.all(
        [...checkpoint.pages[group]!]
          .filter((page) => page >= 0)
          .map(async (page) => {
            const content = Buffer.alloc(pool.pageBytes, `${group}:${page} `);
            await pool.writePage(page, 0, content);
          }),
      ),
    ),
  );
  expect(written[0]).toHaveLength(40);
  const tokens = Int32Array.from({ length }, (_, i) => i);
  const pieces: Uint8Array[] = [];
  for await (const piece of framed({}, await contentOf(store, checkpoint, stateDtype, tokens))) pieces.push(piece);
  expect(pieces).toHaveLength(2); // 40 pages of 512 KiB, and a front that no page's size divides
  const reader = new FramedReader('test', new MemorySource(Buffer.concat(pieces)));
  await reader.header();
  const writes = store.pagePools.map((pool) => jest.spyOn(pool, 'writePage'));
  const back = await readContent(store, reader, { length, stateDtype, hasTokens: true });
  expect(writes.map(({ mock }) => mock.calls.length)).toEqual([2, 1]); // pages side by side, of each block at once
  expect(back.tokens).toEqual(tokens);
  expect(await back.checkpoint.logits.read()).toEqual(logits);
  expect(await store.states.read(back.checkpoint.slot)).toEqual(new Float32Array(elements).fill(127));
  for (const [group, pool] of store.pagePools.entries()) {
    const { first, end } = pool.visible(length);
    for (let logical = first; logical < end; logical++) {
      const [from, to] = [checkpoint, back.checkpoint].map(({ pages }) => pool.pageOf(pages[group]!, logical));
      expect(to).not.toBe(from);
      const page = Buffer.alloc(pool.pageBytes);
      await pool.readPage(to!, 0, page);
      const expected = Buffer.alloc(pool.pageBytes, `${group}:${from} `);
      if (logical === end - 1) {
        for (const { offset, heads, width } of pool.group.parts) {
          for (const start of [offset, offset + 64 * heads * width]) {
            expected.fill(0, (start + 4 * heads * width) * 2, (start + 64 * heads * width) * 2);
          }
        }
      }
      expect(Buffer.compare(page, expected)).toBe(0);
    }
  }
  for (const one of [checkpoint, back.checkpoint]) store.release(one);
  store.dispose();
  expect(await used()).toBe(before);
});

test('a float32 state of several parts, one of them longer than a block, lies in the file part by part', async () => {
  await collectForgotten();
  const before = await used();
  const parts = [
    { shape: [100, 19], offset: 0 },
    { shape: [1100, 4096], offset: 1920 },
    { shape: [70], offset: 1920 + 1100 * 4096 },
  ];
  const elements = 1920 + 1100 * 4096 + 128;
  const store = makeStore(parts, elements);
  const made = Tensor.zeros({ dtype: 'float32', shape: [1, vocabularySize], device });
  const checkpoint = store.emptyCheckpoint(1, made);
  const row = Float32Array.from({ length: elements }, (_, i) => i);
  store.states.write(checkpoint.slot, row);
  const pieces: Uint8Array[] = [];
  for await (const piece of framed({}, await contentOf(store, checkpoint, 'float32', undefined))) pieces.push(piece);
  expect(pieces).toHaveLength(2);
  const reader = new FramedReader('test', new MemorySource(Buffer.concat(pieces)));
  await reader.header();
  const header = pieces[0]!.length - 2 ** 24 - 8;
  const content = Buffer.concat([pieces[0]!.subarray(header, -8), pieces[1]!.subarray(0, -8)]);
  const { checkpoint: back } = await readContent(store, reader, { length: 1, stateDtype: 'float32', hasTokens: false });
  const found = await store.states.read(back.slot);
  let at = vocabularySize * 4;
  for (const { shape, offset } of parts) {
    const size = shape.reduce((product, one) => product * one, 1);
    const saved = content.subarray(at, at + 4 * size);
    expect(Buffer.compare(saved, Buffer.from(row.buffer, offset * 4, 4 * size))).toBe(0);
    expect(found.subarray(offset, offset + size)).toEqual(row.subarray(offset, offset + size));
    at += 4 * size;
  }
  for (const one of [checkpoint, back]) store.release(one);
  store.dispose();
  expect(await used()).toBe(before);
});
