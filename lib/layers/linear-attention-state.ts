// What a LinearAttention layer holds of its sequences: a slot each.
import { linattnError } from '../errors';
import { type DeviceName, defaultDevice } from '../tensor/device';
import { own } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';

export interface LinearAttentionStateSizes {
  readonly slots: number;
  /** State heads: the larger of key and value heads. */
  readonly heads: number;
  /** Features, a multiple of 8: LinearAttention.featureWidth. */
  readonly keyWidth: number;
  readonly valueWidth: number;
}

/** The values of a state, by part: plain arrays that a service can store. */
export type SavedLinearAttentionState = Readonly<Record<string, Float32Array>>;

/** Belongs to whoever made it: no scope frees it. A slot holds one sequence; a fresh one begins with readSlots of -1. */
export class LinearAttentionState implements Disposable {
  /** float32 [slots, heads, valueWidth, keyWidth] */
  readonly state: Tensor<'float32'>;
  /** float32 [slots, heads, keyWidth], the normaliser */
  readonly keySum: Tensor<'float32'> | undefined;
  /** float32 [slots, heads], the exponent that FAVOR+ has subtracted */
  readonly keyMax: Tensor<'float32'> | undefined;

  /** @internal made by LinearAttention.createState */
  constructor(
    { slots, heads, keyWidth, valueWidth }: LinearAttentionStateSizes,
    { keySum, keyMax, device = defaultDevice() }: { keySum: boolean; keyMax: boolean; device?: DeviceName | undefined },
  ) {
    const zeros = (...shape: number[]) => own(Tensor.zeros({ dtype: 'float32', shape, device }));
    this.state = zeros(slots, heads, valueWidth, keyWidth);
    this.keySum = keySum ? zeros(slots, heads, keyWidth) : undefined;
    this.keyMax = keyMax ? zeros(slots, heads) : undefined;
    this.keyMax?.write(new Float32Array(slots * heads).fill(Number.NEGATIVE_INFINITY));
  }

  private parts(): [name: string, tensor: Tensor<'float32'>][] {
    return Object.entries({ state: this.state, keySum: this.keySum, keyMax: this.keyMax }).filter(
      (part): part is [string, Tensor<'float32'>] => part[1] !== undefined,
    );
  }

  /** The values of all slots, when the commands before it are done. */
  async save(): Promise<SavedLinearAttentionState> {
    return Object.fromEntries(
      await Promise.all(this.parts().map(async ([name, tensor]) => [name, await tensor.read()])),
    );
  }

  /**
   * All slots as they were saved, by a layer of the same options and weights.
   * @throws LinattnError ERR_DTYPE when a part is missing or no Float32Array, ERR_SHAPE for another size; nothing is changed then
   */
  restore(saved: SavedLinearAttentionState): void {
    const parts = this.parts();
    for (const [name, tensor] of parts) {
      const wanted = tensor.byteLength / 4;
      const values: unknown = saved[name];
      if (Object.prototype.toString.call(values) !== '[object Float32Array]') {
        throw linattnError('ERR_DTYPE', `LinearAttentionState: ${name} must be a Float32Array of ${wanted} values`);
      }
      const { length } = values as Float32Array;
      if (length === wanted) continue;
      throw linattnError('ERR_SHAPE', `LinearAttentionState: ${name} must have ${wanted} values, got ${length}`);
    }
    for (const [name, tensor] of parts) tensor.write(saved[name]!);
  }

  /** Frees the memory once the commands that use it are done. Idempotent. */
  dispose(): void {
    for (const [, tensor] of this.parts()) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
