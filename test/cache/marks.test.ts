// Where states are taken.
import { marksOf } from '../../lib/cache/marks';
import type { DeviceName } from '../../lib/tensor/device';

const on = (device: DeviceName, from: number, length: number, every: number, ends: number[]) =>
  marksOf({ from, length, every, ends, device }).map((mark) => (mark.isLasting ? mark.at : -mark.at)); // those that do not last: < 0
const at = (from: number, length: number, every: number, ...ends: number[]) => on('cpu', from, length, every, ends);

test('every so many tokens, at ends of messages, and near the end of a long text', () => {
  expect(at(0, 100, 8192)).toEqual([100]);
  expect(at(0, 20_000, 8192)).toEqual([-8192, -15_904, -16_384, -18_976, 19_744, 20_000]);
  expect(at(0, 300, 128)).toEqual([-128, -256, 300]);
  expect(at(0, 1000, 8192, 200, 700)).toEqual([200, 700, 1000]);
});

test('none where less than 64 tokens would be read again, but for the end', () => {
  expect(at(0, 1000, 8192, 63, 64, 100, 990)).toEqual([64, 990, 1000]);
  expect(at(100, 1000, 8192, 50, 100, 163, 164, 1000, 2000)).toEqual([164, 1000]);
  expect(at(8150, 8300, 8192)).toEqual([8300]);
  expect(at(0, 9000, 8192, 8180)).toEqual([-4904, -7976, 8180, 8744, 9000]);
});

test('on a GPU none just behind a long text', () => {
  expect(on('cuda:0', 99_808, 100_064, 8192, [100_000])).toEqual([100_064]);
  expect(on('cuda:0', 99_808, 100_800, 8192, [100_000, 100_300])).toEqual([100_300, 100_800]);
  expect(on('cuda:0', 0, 1000, 8192, [64, 200])).toEqual([64, 200, 1000]);
  expect(at(99_808, 100_064, 8192, 100_000)).toEqual([100_000, 100_064]);
});
