// Rows for `sample`: each with logits and settings of its own.
import { sample } from '../../lib/ops/sample';
import { encodeSampling, type Sampling, tokenWords } from '../../lib/ops/sampling-table';
import { Tensor } from '../../lib/tensor/tensor';

export interface Row {
  logits: ArrayLike<number>;
  sampling: Sampling;
  position?: number;
  seen?: ReadonlySet<number>;
  allowed?: ReadonlySet<number>;
}

export const bits = (sets: (ReadonlySet<number> | undefined)[], vocab: number): Tensor<'int32'> => {
  const words = tokenWords(vocab);
  const data = new Int32Array(sets.length * words);
  sets.forEach((set, slot) => {
    for (const id of set ?? []) data[slot * words + (id >> 5)]! |= 1 << (id & 31);
  });
  return Tensor.from(data, { dtype: 'int32', shape: [sets.length, words] });
};

/** Each row in a slot of its own, slots in falling order. */
export function enqueue(rows: readonly Row[]) {
  const N = rows.length;
  const vocab = rows[0]!.logits.length;
  const logits = new Float32Array(N * vocab);
  rows.forEach((row, n) => {
    logits.set(row.logits, n * vocab);
  });
  const params = new Float32Array(N * 8);
  const intParams = new Int32Array(N * 8);
  rows.forEach((row, n) => {
    const encoded = encodeSampling(row.sampling);
    params.set(encoded.params, (N - 1 - n) * 8);
    intParams.set(encoded.intParams, (N - 1 - n) * 8);
  });
  const bySlot = [...rows].reverse();
  return sample({
    logits: Tensor.from(logits, { dtype: 'float32', shape: [N, vocab] }),
    rows: Tensor.from(
      Int32Array.from(rows, (_, n) => N - 1 - n),
      { dtype: 'int32', shape: [N] },
    ),
    positions: Tensor.from(
      Int32Array.from(rows, (row) => row.position ?? 0),
      { dtype: 'int32', shape: [N] },
    ),
    params: Tensor.from(params, { dtype: 'float32', shape: [N, 8] }),
    intParams: Tensor.from(intParams, { dtype: 'int32', shape: [N, 8] }),
    seen: bits(
      bySlot.map((row) => row.seen),
      vocab,
    ),
    allowed: bits(
      bySlot.map((row) => row.allowed),
      vocab,
    ),
  });
}

export async function sampleRows(rows: readonly Row[]) {
  const { token, logprob } = enqueue(rows);
  return { tokens: Array.from(await token.read()), logprobs: Array.from(await logprob.read()) };
}
