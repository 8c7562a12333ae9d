// Weight: the matrix of a linear layer, packed for products. Ops take it whole, never its tensors, so that its layout and
// new dtypes are nobody else's business.
import { checkOptions, linattnError, shown } from '../errors';
import { type DeviceName, defaultDevice } from '../tensor/device';
import { dtypeBytes, dtypeNumber } from '../tensor/dtype';
import { own } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { type Float, floats } from './float';

export type WeightDType = Float | 'int8';
export const weightDTypes: readonly WeightDType[] = [...floats, 'int8'];

/** Outputs of a panel; native/cpu/weight-layout.h describes what is in it. */
const panel = 32;

/** The fields of an op that takes a Weight, in the order of the native structs. */
export const weightFields = { dtype: 'number', group: 'number' } as const;

const whole = (value: number, least: number): boolean => Number.isSafeInteger(value) && value >= least;

/**
 * [N outputs, K inputs] in float32, bfloat16, float16, or int8 with float32 scales: one scale an output, or one for each
 * `group` inputs of it. Belongs to whoever made it: no scope frees it.
 */
export class Weight implements Disposable {
  /** [N, K] */
  readonly shape: readonly [number, number];
  readonly dtype: WeightDType;
  /** int8: inputs that share a scale; 0 = all of an output's. */
  readonly group: number;
  /** @internal packed */
  readonly data: Tensor<'uint8'>;
  /** @internal int8: float32 [panels, groups, 32] */
  readonly scales?: Tensor<'float32'>;

  /** @internal */
  constructor(shape: readonly [number, number], dtype: WeightDType, group: number, device: DeviceName) {
    const [N, K] = shape;
    const panels = Math.ceil(N / panel);
    const bytes = panels * panel * (K + (K % 2)) * dtypeBytes(dtype);
    this.shape = [N, K];
    this.dtype = dtype;
    this.group = group;
    this.data = own(Tensor.zeros({ dtype: 'uint8', shape: [bytes], device }));
    if (dtype !== 'int8') return;
    const groups = group === 0 ? 1 : Math.ceil(K / group);
    this.scales = own(Tensor.zeros({ dtype: 'float32', shape: [panels, groups, panel], device }));
  }

  /**
   * A weight of zeros, to be filled by packWeight.
   * @param group int8 only: 0 (default) or a multiple of 32
   * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
   */
  static zeros(
    shape: readonly [number, number],
    dtype: WeightDType,
    options: { group?: number; device?: DeviceName } = {},
  ): Weight {
    checkOptions('Weight', options);
    const { group = 0, device = defaultDevice() } = options;
    if (!weightDTypes.includes(dtype)) {
      throw linattnError('ERR_DTYPE', `Weight: dtype must be ${weightDTypes.join(' or ')}, got ${shown(dtype)}`);
    }
    if (!Array.isArray(shape) || shape.length !== 2 || !shape.every((size) => whole(size, 1))) {
      throw linattnError(
        'ERR_SHAPE',
        `Weight: shape must be [N, K], both at least 1, got ${Array.isArray(shape) ? `[${shape.map(shown).join(', ')}]` : shown(shape)}`,
      );
    }
    if (!whole(group, 0) || group % 32 !== 0 || (group > 0 && dtype !== 'int8')) {
      const allowed = dtype === 'int8' ? '0 or a multiple of 32' : `0 for ${dtype}`;
      throw linattnError('ERR_ARGUMENT', `Weight: group must be ${allowed}, got ${shown(group)}`);
    }
    return new Weight(shape, dtype, group, device);
  }

  get device(): DeviceName {
    return this.data.device;
  }

  /** Bytes in memory, scales and padding included. */
  get byteLength(): number {
    return this.data.byteLength + (this.scales?.byteLength ?? 0);
  }

  /** @internal the values of an op's record */
  get record() {
    return { weights: this.data, scales: this.scales, dtype: dtypeNumber(this.dtype), group: this.group };
  }

  /** Frees the memory once the commands that use it are done. Idempotent. */
  dispose(): void {
    this.data.dispose();
    this.scales?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
