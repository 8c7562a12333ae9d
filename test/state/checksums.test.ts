// Checksums of blocks against those of the xxhash package of Python (4.1.0): xxhash.xxh64(data, seed).hexdigest().
import { addon, request } from '../../lib/binding/load';

const dataOf = (length: number) => Uint8Array.from({ length }, (_, i) => i * 131 + 7);
const blockOf = (length: number) => {
  const block = new Uint8Array(length + 8);
  block.set(dataOf(length));
  return block;
};
const make = (block: Uint8Array, seed: number) => request((number) => addon.makeChecksum(block, seed, number));
const check = (block: Uint8Array, seed: number) => request((number) => addon.checkChecksum(block, seed, number));

test.each([
  [0, 0, 'ef46db3751d8e999'],
  [0, 0x123456789abc, '1640230f7e3ea661'],
  [1, 0, 'a96c7f0ce858bbb7'],
  [3, 0x123456789abc, 'a9458a70e22bcf2f'],
  [4, 0, 'fa212ae44b3bb23d'],
  [7, 0x123456789abc, '122a445bf598d17e'],
  [8, 0, '994b676b71ce94dd'],
  [31, 0, '6711d55e306b5d8f'],
  [32, 0x123456789abc, 'eb27cbe0cfec07e8'],
  [33, 0, '09f85eeb4e1cbe9f'],
  [63, 0x123456789abc, '206887f0b4227fb5'],
  [100, 0, '9ddada11d3dc2d8f'],
  [65536, 0x123456789abc, '8b4efe20ce347eb9'],
])('of %i bytes with seed %i', async (length, seed, expected) => {
  const block = blockOf(length);
  await make(block, seed);
  expect(block.subarray(0, length)).toEqual(dataOf(length));
  expect(Buffer.from(block.subarray(length)).reverse().toString('hex')).toBe(expected); // little-endian
  await check(block, seed);
});

test('another byte, another seed or another checksum is ERR_SNAPSHOT_CORRUPT', async () => {
  const block = blockOf(100);
  await make(block, 5);
  await expect(check(block, 6)).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_CORRUPT' });
  for (let at = 0; at < block.length; at++) {
    block[at]! ^= 16;
    await expect(check(block, 5)).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_CORRUPT' });
    block[at]! ^= 16;
  }
  await check(block, 5);
  await expect(make(new Uint8Array(7), 0)).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
});
