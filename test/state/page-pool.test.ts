// Pages: what a step needs is there before it runs or nothing changes, shared ones are copied before they are written,
// and a window's memory does not grow.
import { KvGroup } from '../../lib/layers/layer';
import { PagePool } from '../../lib/state/page-pool';
import { device } from '../support/device';
import { collectForgotten, used } from '../support/held';

const sizes = {
  sequences: 2,
  checkpoints: 2,
  stepTokens: 64,
  contextLength: 1024,
  device,
  dtype: 'float32',
} as const;
const outOfMemory = expect.objectContaining({ code: 'ERR_OUT_OF_MEMORY', message: expect.stringContaining('full') });

function poolOf(window: number, capacityTokens: number): PagePool {
  const group = new KvGroup(window);
  group.add(1, 8);
  return new PagePool(group, { ...sizes, capacityTokens });
}
const pages = (held: Int32Array) => [...held].filter((page) => page >= 0);

beforeAll(collectForgotten);

test('pages that are not there are an error before anything changes, and come back when they are given up', async () => {
  const pool = poolOf(0, 192);
  const before = await used();
  const [first, second] = [pool.empty(), pool.empty()];
  pool.reserve(0, first, 0, 130);
  expect(pages(first)).toHaveLength(3);
  expect((await used()) - before).toBe(3 * 2 * 64 * 8 * 4);
  expect(() => pool.reserve(1, second, 0, 1)).toThrow(outOfMemory);
  expect(() => pool.reserve(0, first, 130, 193)).toThrow(outOfMemory);
  expect(() => pool.allocate(1)).toThrow(outOfMemory);
  expect(pages(second)).toHaveLength(0);
  expect(pages(first)).toHaveLength(3);
  pool.reserve(0, first, 130, 192); // inside its last page
  expect(pages(first)).toHaveLength(3);
  pool.release(first);
  expect(await used()).toBe(before);
  pool.reserve(1, second, 0, 192);
  expect(pages(second)).toHaveLength(3);
  pool.dispose();
});

test('a page that a checkpoint holds is copied before it is written', async () => {
  const pool = poolOf(0, 1024);
  const held = pool.empty();
  pool.reserve(0, held, 0, 100);
  const last = held[1]!;
  const content = Float32Array.from({ length: 2 * 64 * 8 }, (_, i) => i);
  await pool.writePage(last, 0, new Uint8Array(content.buffer, 0, 512));
  await pool.writePage(last, 512, new Uint8Array(content.buffer, 512)); // in parts
  const shared = pool.share(held, 100);
  expect([...shared]).toEqual([...held]);
  pool.reserve(0, held, 100, 101);
  expect(held[0]).toBe(shared[0]);
  expect(held[1]).not.toBe(last);
  const read = new Float32Array(content.length - 100);
  await pool.readPage(held[1]!, 400, new Uint8Array(read.buffer));
  expect(read).toEqual(content.slice(100));
  const own = held[1];
  pool.reserve(0, held, 101, 102); // its own now
  expect(held[1]).toBe(own);
  // Back at the checkpoint, the copy is free again and the next write copies once more.
  pool.restore(0, held, shared);
  expect([...held]).toEqual([...shared]);
  pool.release(shared);
  pool.reserve(0, held, 100, 101);
  expect(held[1]).toBe(last);
  pool.dispose();
});

test("a window's pages do not grow with the tokens, and the visible ones are those of the last tokens", async () => {
  const pool = poolOf(128, 0);
  const held = pool.empty();
  let most = 0;
  for (let at = 0; at < 1024; at += 64) {
    pool.reserve(0, held, at, at + 64);
    most = Math.max(most, pages(held).length);
  }
  expect(most).toBeLessThanOrEqual(Math.ceil((128 + 64) / 64) + 2);
  expect(pool.visible(1000)).toEqual({ first: 13, end: 16 });
  const shared = pool.share(held, 1000);
  expect(new Set(pages(shared))).toEqual(new Set([13, 14, 15].map((logical) => pool.pageOf(held, logical))));
  pool.dispose();
});

test('no memory for a single page is said so', () => {
  const message = expect.stringContaining('leave no memory for keys and values');
  expect(() => poolOf(0, 0)).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_MEMORY', message }));
});
