// Whether arrays hold the same bytes.
export const bytes = (array: ArrayBufferView) => Buffer.from(array.buffer, array.byteOffset, array.byteLength);
export const same = (a: readonly ArrayBufferView[], b: readonly ArrayBufferView[]) =>
  a.length === b.length && a.every((part, i) => bytes(part).equals(bytes(b[i]!)));
