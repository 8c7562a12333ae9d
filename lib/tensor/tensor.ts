// Typed tensors: a handle, a shape and a dtype; the memory lives on the device and is bound when a command first uses it.
import { addon, checked, request } from '../binding/load';
import { checkOptions, LinattnError, shown } from '../errors';
import { type DeviceName, defaultDevice, deviceIndex } from './device';
import { arrayFrom, type DType, type DTypes, dtypeBytes, dtypeNumber, dtypes, newArray } from './dtype';
import { join, leave, owner } from './scope';

const collected = new FinalizationRegistry<number>((id) => {
  addon.record[0] = id;
  addon.release(1);
});

/** What ops/convert.ts does for tensors: a new tensor of the same device and shape. ERR_UNSUPPORTED */
export const conversion: { convert(x: Tensor, dtype: DType): Tensor } = { convert: (x) => x };

export type Shape = readonly number[];

const elements = (shape: Shape): number => shape.reduce((product, size) => product * size, 1);

/** What every way to make a tensor asks of its options. */
function checkMade(call: string, options: { readonly dtype: DType; readonly shape: Shape }): void {
  const { dtype, shape } = (options ?? {}) as Partial<typeof options>;
  if (!dtypes.includes(dtype!)) {
    throw new LinattnError('ERR_DTYPE', `${call}: dtype must be ${dtypes.join(' or ')}, got ${shown(dtype)}`);
  }
  if (!Array.isArray(shape)) throw new LinattnError('ERR_SHAPE', `${call}: shape must be a list, got ${typeof shape}`);
  checkShape(shape);
}

function checkShape(shape: Shape): void {
  if (shape.length > 5 || !shape.every((size) => Number.isSafeInteger(size) && size >= 0)) {
    throw new LinattnError(
      'ERR_SHAPE',
      `Tensor: shape must be at most 5 whole numbers >= 0, got [${shape.map(shown).join(', ')}]`,
    );
  }
}

function checkedNumbers(dtype: DType, values: readonly number[]): readonly number[] {
  const holds = (value: unknown) => typeof value === 'number' && (dtype !== 'int64' || Number.isFinite(value));
  const wrong = Array.prototype.findIndex.call(values, (value) => !holds(value));
  if (wrong < 0) return values;
  const wanted = dtype === 'int64' ? 'a finite number' : 'a number';
  throw new LinattnError('ERR_ARGUMENT', `Tensor.from: data[${wrong}] must be ${wanted}, got ${String(values[wrong])}`);
}

/**
 * An array on a device. Ops enqueue and return at once; `read()` resolves when the commands before it are done, and
 * rejects with the error of the first command that failed on the way to this tensor.
 */
export class Tensor<D extends DType = DType> implements Disposable {
  readonly dtype: D;
  readonly shape: Shape;
  readonly device: DeviceName;
  /** @internal handle of the addon; 0 once disposed, and before the op that makes it has run */
  id: number;
  /** @internal the number of the scope that frees it; 0 = none */
  scope = 0;
  private registered = false;

  private constructor(id: number, dtype: D, shape: Shape, device: DeviceName) {
    this.id = id;
    this.dtype = dtype;
    this.shape = shape;
    this.device = device;
    if (id !== 0) this.adopt(id);
  }

  /** @internal of an op's output: a handle that the op's run() fills */
  static output<D extends DType>(dtype: D, shape: Shape, device: DeviceName): Tensor<D> {
    return new Tensor(0, dtype, shape, device);
  }

  /** @internal called when the addon has made the handle */
  adopt(id: number): void {
    this.id = id;
    if (!join(this)) this.keep();
  }

  /** @internal outside every scope: freed by dispose, or at last by the garbage collector */
  keep(): void {
    if (this.registered || this.id === 0) return;
    this.registered = true;
    collected.register(this, this.id, this);
  }

  /**
   * A copy of `data` on the device. Numbers are converted to `dtype`; a typed array must be the one of `dtype`.
   * @throws LinattnError ERR_SHAPE when the sizes do not match, ERR_DTYPE when the typed array is of another kind
   */
  static from<D extends DType>(
    data: DTypes[D] | readonly number[],
    options: { dtype: D; shape: Shape; device?: DeviceName },
  ): Tensor<D> {
    checkMade('Tensor.from', options);
    const { dtype, shape } = options;
    if (typeof data !== 'object' || data === null) {
      throw new LinattnError('ERR_ARGUMENT', `Tensor.from: data must be a list or a typed array, got ${typeof data}`);
    }
    if (data.length !== elements(shape)) {
      throw new LinattnError(
        'ERR_SHAPE',
        `Tensor.from: [${shape.join(', ')}] needs ${elements(shape)} values, got ${data.length}`,
      );
    }
    const array = ArrayBuffer.isView(data) ? data : arrayFrom(dtype, checkedNumbers(dtype, data as readonly number[]));
    const expected = Object.prototype.toString.call(newArray(dtype, 0));
    const got = Object.prototype.toString.call(array);
    if (got !== expected) {
      throw new LinattnError(
        'ERR_DTYPE',
        `Tensor.from: ${dtype} data must be ${expected.slice(8, -1)}, got ${got.slice(8, -1)}`,
      );
    }
    const tensor = Tensor.make(options, false, false);
    if (array.byteLength > 0) tensor.write(array as DTypes[D]);
    return tensor;
  }

  /** A tensor of zeros. */
  static zeros<D extends DType>(options: { dtype: D; shape: Shape; device?: DeviceName }): Tensor<D> {
    checkMade('Tensor.zeros', options);
    return Tensor.make(options, true, false);
  }

  /** @internal `transactional`: a pool whose writes count only once committed; a failed command does not taint it */
  static make<D extends DType>(
    options: { dtype: D; shape: Shape; device?: DeviceName },
    zeroed: boolean,
    transactional: boolean,
  ): Tensor<D> {
    const { dtype, shape, device = defaultDevice() } = options;
    checkShape(shape);
    const record = addon.record;
    record[0] = deviceIndex(device);
    record[1] = zeroed ? 1 : 0;
    record[2] = transactional ? 1 : 0;
    record[3] = dtypeNumber(dtype);
    record[4] = shape.length;
    for (let i = 0; i < shape.length; i++) record[5 + i] = shape[i]!;
    return new Tensor(checked(addon.create()), dtype, shape.slice(), device);
  }

  get byteLength(): number {
    return elements(this.shape) * dtypeBytes(this.dtype);
  }

  /**
   * @internal Part of this tensor's memory as a tensor: `offset` and `stride` (of the first dimension) in elements of
   * the view's dtype.
   */
  view<E extends DType = D>(shape: Shape, offset: number, stride: number, dtype?: E): Tensor<E> {
    const record = addon.record;
    const kind = (dtype ?? this.dtype) as E;
    record[0] = this.live();
    record[1] = offset;
    record[2] = stride;
    record[3] = dtypeNumber(kind);
    record[4] = shape.length;
    for (let i = 0; i < shape.length; i++) record[5 + i] = shape[i]!;
    return new Tensor<E>(checked(addon.view()), kind, shape, this.device);
  }

  /** @internal enqueues a copy of `data` to `offset` (elements) */
  write(data: DTypes[D], offset = 0): void {
    checked(addon.write(this.live(), offset * dtypeBytes(this.dtype), data));
  }

  /** @internal the same without a copy: `data` stays as it is until this resolves; `offset` in bytes */
  async writeHeld(data: Uint8Array, offset: number): Promise<void> {
    const id = this.live();
    await request((number) => addon.writeHeld(id, offset, data, number));
  }

  /**
   * The same values in another dtype, on another device, or both: always a new tensor, also where nothing changes. Between
   * float32, bfloat16 and float16 values are rounded to nearest even, beyond the range to infinity. Between devices they
   * go by way of the host; that waits on the devices' queues, not here.
   * @throws LinattnError ERR_UNSUPPORTED for a change of dtype from or to whole numbers, ERR_DTYPE, ERR_DEVICE,
   *   ERR_DISPOSED; ERR_ARGUMENT inside capture(), where only a change of dtype alone is possible
   */
  to<E extends DType = D>(target: { dtype?: E; device?: DeviceName }): Tensor<E> {
    checkOptions('Tensor.to', target);
    const { device = this.device } = target;
    const dtype = (target.dtype ?? this.dtype) as E;
    this.live();
    if (!dtypes.includes(dtype)) {
      throw new LinattnError('ERR_DTYPE', `Tensor.to: dtype must be ${dtypes.join(' or ')}, got ${shown(dtype)}`);
    }
    const staysHere = deviceIndex(device) === deviceIndex(this.device);
    if ((dtype as DType) === this.dtype) return this.copyTo(device) as Tensor as Tensor<E>;
    const converted = conversion.convert(this, dtype) as Tensor<E>;
    if (staysHere) return converted;
    try {
      return converted.copyTo(device);
    } finally {
      converted.dispose();
    }
  }

  /** The same bytes in a new tensor. */
  private copyTo(device: DeviceName): Tensor<D> {
    const copy = Tensor.make({ dtype: this.dtype, shape: this.shape, device }, false, false);
    try {
      checked(addon.copy(this.live(), copy.live()));
      return copy;
    } catch (error) {
      copy.dispose();
      throw error;
    }
  }

  /** The values, in row-major order. ERR_OUT_OF_MEMORY when JavaScript has no room for them. */
  async read(): Promise<DTypes[D]> {
    this.live();
    const target = this.roomForValues();
    await this.readInto(target);
    return target;
  }

  /** @internal the same into memory of as many bytes */
  async readInto(target: ArrayBufferView): Promise<void> {
    const id = this.live();
    await request((number) => addon.read(id, number, target));
  }

  private roomForValues(): DTypes[D] {
    try {
      return newArray(this.dtype, elements(this.shape));
    } catch (cause) {
      throw new LinattnError('ERR_OUT_OF_MEMORY', `read: no typed array holds [${this.shape.join(', ')}]`, { cause });
    }
  }

  /** @internal resolves when the commands so far are done; rejects with this tensor's error */
  async wait(): Promise<void> {
    const id = this.live();
    await request((number) => addon.wait(id, number));
  }

  /** @internal the handle, or ERR_DISPOSED */
  live(): number {
    if (this.id === 0) throw new LinattnError('ERR_DISPOSED', 'a tensor is used after its dispose()');
    return this.id;
  }

  /** Frees the memory once the commands that use it are done. Idempotent. */
  dispose(): void {
    if (this.id === 0) return;
    if (this.registered) collected.unregister(this);
    leave(this);
    addon.record[0] = this.id;
    addon.release(1);
    this.id = 0;
  }

  /** @internal dispose() of tensors that a scope owned, in one call for as many as the record holds */
  static disposeAll(tensors: Iterable<Tensor>): void {
    const { record } = addon;
    let count = 0;
    for (const tensor of tensors) {
      if (tensor.id === 0) continue;
      record[count++] = tensor.id;
      tensor.id = 0;
      if (count < record.length) continue;
      addon.release(count);
      count = 0;
    }
    if (count > 0) addon.release(count);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

owner.keep = (tensor) => (tensor as Tensor).keep();
owner.disposeAll = (tensors) => Tensor.disposeAll(tensors as Iterable<Tensor>);
