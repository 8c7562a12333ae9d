// Logits of every position of a prompt, read in any slices: what sessions never ask for, and goldens have.
import type { LoadedModel, Model } from '../../lib/generation/model';
import type { ModelCore } from '../../lib/generation/model-core';
import type { LanguageModel } from '../../lib/model/language-model';
import { beginStep } from '../../lib/ops/begin-step';
import { commitStep } from '../../lib/ops/commit-step';
import type { NdArray } from '../../lib/ops/reference';
import { nd } from '../../lib/ops/reference';
import { Sequences } from '../../lib/ops/sequences';
import { scope } from '../../lib/tensor/scope';
import { Tensor } from '../../lib/tensor/tensor';

const ints = (values: ArrayLike<number>) =>
  Tensor.from(Int32Array.from(values), { dtype: 'int32', shape: [values.length] });

/** The parts of a loaded model that no user sees. */
export function insideOf(model: Model): { core: ModelCore; network: LanguageModel } {
  const { core } = model as LoadedModel as unknown as { core: ModelCore };
  const { steps } = core.scheduler as unknown as { steps: { network: LanguageModel } };
  return { core, network: steps.network };
}

/** Logits [T, vocabulary] of `tokens`, read in slices of these lengths (their sum is T) on a sequence of its own. */
export async function allLogits(model: Model, tokens: ArrayLike<number>, slices: readonly number[]): Promise<NdArray> {
  const { core, network } = insideOf(model);
  const { store } = core.scheduler;
  const vocabulary = network.vocabularySize;
  const sequence = store.open();
  const all = nd([tokens.length, vocabulary]);
  const ids = Int32Array.from(tokens);
  try {
    let at = 0;
    for (const size of slices) {
      store.reserve(sequence, at, at + size);
      const logits = scope(() => {
        const rows = ints([sequence.slot]);
        const offsets = ints([0, size]);
        const { readSlots, writeSlots, positions } = beginStep(rows, offsets, store.table, false);
        const sizes = { rows: 1, tokens: size, maxTokens: size, singleRows: size === 1 ? 1 : 0 };
        const sequences = new Sequences({ ...sizes, offsets, readSlots, writeSlots, positions });
        const out = network.logits(network.hidden(ints(ids.subarray(at, at + size)), { sequences, rows }));
        commitStep(rows, store.table, { offsets, after: out });
        return out;
      });
      all.data.set(await logits.read(), at * vocabulary);
      logits.dispose();
      at += size;
      sequence.length = at;
    }
    return all;
  } finally {
    store.close(sequence);
  }
}

/** Lengths of slices of at most `size` that make up `total`. */
export function slicesOf(total: number, size: number): number[] {
  return Array.from({ length: Math.ceil(total / size) }, (_, i) => Math.min(size, total - i * size));
}
