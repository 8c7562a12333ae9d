// The types that a saved state may have. Half the bytes or a quarter of them cost some accuracy: docs/snapshots.md has figures.
import { fromBFloat16, toBFloat16 } from '../tensor/dtype';

export const stateDTypes = ['float32', 'bfloat16', 'int8'] as const;
export type StateDType = (typeof stateDTypes)[number];

/** Values that share one scale in int8: a row of the last dimension. Shorter rows stay float32, as scales would outweigh them. */
const shortestRow = 16;

export interface StoredPart {
  readonly dtype: StateDType;
  /** Values a scale; 0 = no scales. */
  readonly row: number;
}

/** How a part of the state of this shape is stored. */
export function storedPart(shape: readonly number[], asked: StateDType): StoredPart {
  const row = shape.at(-1)!;
  if (asked === 'int8') return row < shortestRow ? { dtype: 'float32', row: 0 } : { dtype: 'int8', row };
  return { dtype: asked, row: 0 };
}

/** The stored arrays of a part, in their order in the file. Values are rounded to nearest. */
export function encodePart(values: Float32Array, { dtype, row }: StoredPart): ArrayBufferView[] {
  if (dtype === 'float32') return [values];
  if (dtype === 'bfloat16') {
    const halves = new Uint16Array(values.length);
    for (let i = 0; i < values.length; i++) halves[i] = toBFloat16(values[i]!);
    return [halves];
  }
  const scales = new Float32Array(values.length / row);
  const small = new Int8Array(values.length);
  for (let r = 0; r < scales.length; r++) {
    let largest = 0;
    for (let i = r * row; i < (r + 1) * row; i++) largest = Math.max(largest, Math.abs(values[i]!));
    scales[r] = largest / 127;
    const inverse = largest > 0 ? 127 / largest : 0;
    for (let i = r * row; i < (r + 1) * row; i++) small[i] = Math.round(values[i]! * inverse);
  }
  return [scales, small];
}

/** Sizes in bytes of the arrays that encodePart makes of `count` values. */
export function partBytes(count: number, { dtype, row }: StoredPart): number[] {
  if (dtype === 'int8') return [(count / row) * 4, count];
  return [count * (dtype === 'float32' ? 4 : 2)];
}

/** The values again, from the arrays' memory. */
export function decodePart(arrays: readonly ArrayBuffer[], { dtype, row }: StoredPart): Float32Array {
  if (dtype === 'float32') return new Float32Array(arrays[0]!);
  if (dtype === 'bfloat16') {
    const halves = new Uint16Array(arrays[0]!);
    const values = new Float32Array(halves.length);
    for (let i = 0; i < values.length; i++) values[i] = fromBFloat16(halves[i]!);
    return values;
  }
  const scales = new Float32Array(arrays[0]!);
  const small = new Int8Array(arrays[1]!);
  const values = new Float32Array(small.length);
  for (let r = 0; r < scales.length; r++) {
    for (let i = r * row; i < (r + 1) * row; i++) values[i] = small[i]! * scales[r]!;
  }
  return values;
}
