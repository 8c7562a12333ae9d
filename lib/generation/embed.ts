// One vector for a text: the mean of its last hidden states, of length 1.
import { linattnError } from '../errors';
import { inputOf } from './input';
import type { ModelCore } from './model-core';
import { tokensOf } from './tokens-of';

export type EmbedInput = { prompt: string } | { tokens: ArrayLike<number> };

/** Float32 [C]. The sum runs in float64 in the order of the tokens, so that slices change no bit of it. */
export async function embed(core: ModelCore, input: EmbedInput, signal: AbortSignal): Promise<Float32Array> {
  const given = inputOf('embed', input);
  if (given === undefined || !('prompt' in given || 'tokens' in given)) {
    throw linattnError('ERR_ARGUMENT', 'embed: give one of prompt, tokens');
  }
  const tokens = await tokensOf(core, 'embed', given, new Int32Array(0), signal);
  if (tokens.length === 0) throw linattnError('ERR_ARGUMENT', 'embed: there are no tokens to read');
  const { scheduler } = core;
  scheduler.store.checkLength(tokens.length);
  const sequence = scheduler.store.open();
  try {
    let sum = new Float64Array(0);
    const onHidden = (hidden: Float32Array, count: number) => {
      const width = hidden.length / count;
      if (sum.length === 0) sum = new Float64Array(width);
      for (let t = 0; t < count; t++) {
        for (let c = 0; c < width; c++) sum[c]! += hidden[t * width + c]!;
      }
    };
    await scheduler.prefill({ sequence, tokens, signal, onProgress: () => undefined, onHidden });
    const norm = Math.hypot(...sum);
    return Float32Array.from(sum, (value) => value / norm);
  } finally {
    scheduler.store.close(sequence);
  }
}
