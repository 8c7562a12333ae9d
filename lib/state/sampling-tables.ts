// How each sequence wants its tokens chosen, by slot, on the device; and which tokens each has seen.
import { markSeen } from '../ops/mark-seen';
import { encodeSampling, type Sampling, samplingRow, tokenWords } from '../ops/sampling-table';
import type { DeviceName } from '../tensor/device';
import { Tensor } from '../tensor/tensor';

export class SamplingTables {
  /** float32 and int32 [slots, 8]: see sample. */
  readonly params: Tensor<'float32'>;
  readonly intParams: Tensor<'int32'>;
  /** int32 [slots, words]: a bit a token. */
  readonly seen: Tensor<'int32'>;
  readonly allowed: Tensor<'int32'>;

  constructor(private readonly options: { slots: number; vocabularySize: number; device: DeviceName }) {
    const { slots, vocabularySize, device } = options;
    const table = (width: number) => Tensor.make({ dtype: 'int32', shape: [slots, width], device }, true, true);
    this.params = Tensor.make({ dtype: 'float32', shape: [slots, samplingRow], device }, true, true);
    this.intParams = table(samplingRow);
    this.seen = table(tokenWords(vocabularySize));
    this.allowed = table(tokenWords(vocabularySize));
  }

  /** ERR_ARGUMENT naming the option that is out of range. */
  set(slot: number, sampling: Sampling): void {
    const { params, intParams } = encodeSampling(sampling);
    this.params.write(params, slot * samplingRow);
    this.intParams.write(intParams, slot * samplingRow);
  }

  /** The tokens that a slot has seen are these and no others. */
  setSeen(slot: number, tokens: Int32Array): void {
    const { vocabularySize, device } = this.options;
    const ints = (data: Int32Array) => Tensor.from(data, { dtype: 'int32', shape: [data.length], device });
    const made = [ints(Int32Array.of(slot)), ints(Int32Array.of(0, tokens.length)), ints(tokens)] as const;
    const [rows, offsets, ids] = made;
    markSeen({ seen: this.seen, rows, offsets, tokens: ids, vocab: vocabularySize, clear: true });
    for (const tensor of made) tensor.dispose();
  }

  dispose(): void {
    for (const tensor of [this.params, this.intParams, this.seen, this.allowed]) tensor.dispose();
  }
}
