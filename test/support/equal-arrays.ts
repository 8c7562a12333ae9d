// For every test file: typed arrays of the same bytes are equal without a look at each element, which expect takes long for.
// What differs somewhere is left to expect, for which NaN is NaN whatever its bits are.

const bytesOf = (view: ArrayBufferView) => Buffer.from(view.buffer, view.byteOffset, view.byteLength);
const tagOf = (value: unknown) => Object.prototype.toString.call(value);

function haveSameBytes(a: unknown, b: unknown): true | undefined {
  if (!ArrayBuffer.isView(a) || !ArrayBuffer.isView(b) || tagOf(a) !== tagOf(b)) return undefined;
  return bytesOf(a).equals(bytesOf(b)) || undefined;
}

// @types/jest does not know it.
(expect as unknown as { addEqualityTesters(testers: readonly unknown[]): void }).addEqualityTesters([haveSameBytes]);
