import { philox, uniformAt, unitInterval } from '../../lib/ops/philox';

// The vectors that Random123 publishes for philox4x32 with 10 rounds (kat_vectors).
test.each([
  [
    [0, 0, 0, 0],
    [0, 0],
    [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
  ],
  [
    [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    [0xffffffff, 0xffffffff],
    [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
  ],
  [
    [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
    [0xa4093822, 0x299f31d0],
    [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  ],
] as const)('philox %j %j', (counter, key, wanted) => {
  expect(philox(counter, key)).toEqual(wanted);
});

test('the unit interval is [0, 1) in steps of 2^-53', () => {
  expect(unitInterval(0, 0)).toBe(0);
  expect(unitInterval(0xffffffff, 0xffffffff)).toBe(1 - 2 ** -53);
  expect(unitInterval(0x80000000, 0)).toBe(0.5);
  expect(unitInterval(0, 64)).toBe(2 ** -53);
});

test('a number for each seed and position', () => {
  const numbers = [uniformAt(1, 0), uniformAt(2, 0), uniformAt(1 + 2 ** 32, 0), uniformAt(1, 1)];
  expect(new Set(numbers).size).toBe(4);
  expect(uniformAt(1, 0)).toBe(numbers[0]);
});
