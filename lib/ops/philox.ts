// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011), the random numbers
// of `sample`: a function of key and counter, so that a generator has no state beyond its counter. native/core/philox.h.

type Words<N extends number> = N extends 4 ? readonly [number, number, number, number] : readonly [number, number];

/** The 64 bits of a product of two 32-bit words, from products of their halves, which a number holds exactly. */
const multiply = (a: number, b: number): [high: number, low: number] => {
  const [a0, a1, b0, b1] = [a & 0xffff, a >>> 16, b & 0xffff, b >>> 16];
  const low = a0 * b0;
  const first = a1 * b0 + (low >>> 16);
  const second = a0 * b1 + (first & 0xffff);
  return [a1 * b1 + (first >>> 16) + (second >>> 16), ((second << 16) | (low & 0xffff)) >>> 0];
};

/** Four 32-bit words from four of a counter and two of a key. */
export function philox(counter: Words<4>, key: Words<2>): Words<4> {
  let [a, b, c, d] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const [high0, low0] = multiply(0xd2511f53, a);
    const [high1, low1] = multiply(0xcd9e8d57, c);
    [a, b, c, d] = [(high1 ^ b ^ k0) >>> 0, low1, (high0 ^ d ^ k1) >>> 0, low0];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [a, b, c, d];
}

/** Uniform in [0, 1), a multiple of 2^-53. */
export const unitInterval = (high: number, low: number): number => ((high >>> 5) * 2 ** 26 + (low >>> 6)) * 2 ** -53;

/** The number that `sample` uses for the token at `position` of a sequence with this seed (a whole number below 2^53). */
export function uniformAt(seed: number, position: number): number {
  const [high, low] = philox([position >>> 0, 0, 0, 0], [seed % 2 ** 32, Math.floor(seed / 2 ** 32)]);
  return unitInterval(high, low);
}
