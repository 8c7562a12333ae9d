// defineOp: the contract of an op on the JavaScript side, and the one packer that writes its record. The fields are
// compared with the native struct's when the module loads, so a misspelt one cannot reach a user.
import type { FieldKind } from '../binding/addon';
import { addon, checked } from '../binding/load';
import { type ErrorCode, LinattnError, shown } from '../errors';
import { type DeviceName, deviceIndex } from '../tensor/device';
import { type DType, dtypeNumber } from '../tensor/dtype';
import { type Shape, Tensor } from '../tensor/tensor';

export type Fields = Readonly<Record<string, FieldKind>>;

/** Values of a call by field name: tensors, numbers (flags as 0 or 1); what is absent is left out. */
export type Values<F extends Fields> = {
  [K in keyof F as F[K] extends 'number' ? K : never]: number | boolean;
} & {
  [K in keyof F as F[K] extends 'in' ? K : never]: Tensor;
} & {
  [K in keyof F as F[K] extends 'optional' | 'inout' | 'out' ? K : never]?: Tensor | undefined;
};

type OpValues = Readonly<Record<string, Tensor | number | boolean | undefined>>;

/** Told of an op that runs, by its name and the values of its fields; calls `enqueue` once. */
export type OpObserver = (name: string, values: OpValues, enqueue: () => void) => void;

let observer: OpObserver | undefined;

/** @internal tells `next` of every op until the function that it returns is called; one at a time */
export function observeOps(next: OpObserver): () => void {
  observer = next;
  return () => {
    observer = undefined;
  };
}

const kindNumber: Record<FieldKind, number> = { in: 0, optional: 1, inout: 2, out: 3, number: 4 };

export class Op<F extends Fields> {
  private readonly index: number;
  private readonly names: readonly string[];
  private readonly kinds: readonly number[];
  /** Indices of the outputs. */
  private readonly outs: readonly number[];

  constructor(
    readonly name: string,
    readonly fields: F,
  ) {
    this.index = addon.ops.findIndex((op) => op.name === name);
    this.names = Object.keys(fields);
    this.kinds = this.names.map((field) => kindNumber[fields[field]!]);
    this.outs = [...this.kinds.keys()].filter((i) => this.kinds[i] === kindNumber.out);
    const native = addon.ops[this.index]?.fields.map((field) => `${field.name}: ${field.kind}`).join(', ');
    const own = this.names.map((field) => `${field}: ${fields[field]}`).join(', ');
    if (native !== own) {
      throw new LinattnError(
        'ERR_ADDON',
        `${name}: the addon has the fields {${native}}, expected {${own}}; rebuild it`,
      );
    }
  }

  /** The error of this op with a message in the one form. */
  error(code: ErrorCode, message: string): LinattnError {
    return new LinattnError(code, `${this.name}: ${message}`, { op: this.name });
  }

  /** What a call, or one of its arguments, is: ERR_ARGUMENT unless it is an object. */
  input<T>(input: T, name = 'the input'): T {
    if (typeof input === 'object' && input !== null && !Array.isArray(input)) return input;
    throw this.error('ERR_ARGUMENT', `${name} must be an object, got ${shown(input)}`);
  }

  /** ERR_ARGUMENT unless it is of this class, of this copy of linattn. */
  instance<T>(name: string, value: T, type: { readonly name: string; readonly prototype: T }): T {
    if (value instanceof (type as unknown as new () => T)) return value;
    throw this.error('ERR_ARGUMENT', `${name} must be a ${type.name}, got ${shown(value)}`);
  }

  /** ERR_ARGUMENT unless it is true or false. */
  flag(name: string, value: boolean): boolean {
    if (typeof value === 'boolean') return value;
    throw this.error('ERR_ARGUMENT', `${name} must be true or false, got ${shown(value)}`);
  }

  /** ERR_ARGUMENT unless it is a Tensor, ERR_DISPOSED when it has gone. */
  tensor<D extends DType>(name: string, value: Tensor<D>): Tensor<D> {
    if (!(value instanceof Tensor)) {
      throw this.error('ERR_ARGUMENT', `${name} must be a Tensor, got ${shown(value)}`);
    }
    return value.id === 0 ? this.gone(name) : value;
  }

  /** The sizes of a tensor whose dimensions have these names; ERR_SHAPE for another rank. */
  shape(name: string, tensor: Tensor, dims: readonly string[]): number[] {
    this.tensor(name, tensor);
    if (tensor.shape.length !== dims.length) {
      throw this.error('ERR_SHAPE', `${name} must be [${dims.join(', ')}], got [${tensor.shape.join(', ')}]`);
    }
    return tensor.shape as number[];
  }

  /** ERR_DTYPE unless the tensor is of one of these dtypes. */
  dtype(name: string, tensor: Tensor, allowed: readonly DType[]): void {
    this.tensor(name, tensor);
    if (!allowed.includes(tensor.dtype)) {
      throw this.error('ERR_DTYPE', `${name} must be ${allowed.join(' or ')}, got ${tensor.dtype}`);
    }
  }

  /** Dtype, and shape by named sizes in order: `expect('weight', weight, 'float32', {C})`. */
  expect(name: string, tensor: Tensor, dtype: DType, sizes: Readonly<Record<string, number>>): void {
    this.tensor(name, tensor);
    if (tensor.dtype !== dtype) throw this.error('ERR_DTYPE', `${name} must be ${dtype}, got ${tensor.dtype}`);
    const dims = Object.keys(sizes);
    if (tensor.shape.length === dims.length && dims.every((dim, i) => tensor.shape[i] === sizes[dim])) return;
    const wanted = dims.map((dim) => sizes[dim]);
    throw this.error(
      'ERR_SHAPE',
      `${name} must be [${dims.join(', ')}] = [${wanted.join(', ')}], got [${tensor.shape.join(', ')}]`,
    );
  }

  /** ERR_ARGUMENT with this message unless `holds`. */
  check(holds: boolean, message: string): void {
    if (!holds) throw this.error('ERR_ARGUMENT', message);
  }

  /** A handle for an output on the device of `like`; `run` makes it. */
  output<D extends DType>(like: Tensor | DeviceName, dtype: D, shape: Shape): Tensor<D> {
    return Tensor.output(dtype, shape, typeof like === 'string' ? like : like.device);
  }

  /** Writes the record and enqueues the command. */
  run(values: Values<F>): void {
    const { record } = addon;
    const { names, kinds } = this;
    const count = names.length;
    const source = values as unknown as OpValues;
    let device: DeviceName | undefined;
    let at = 3 + count;
    let outputs = 0;
    for (let i = 0; i < count; i++) {
      const value = source[names[i]!];
      const kind = kinds[i]!;
      if (kind === 4) {
        if (typeof value !== 'number' && typeof value !== 'boolean') {
          throw this.error('ERR_ARGUMENT', `${names[i]} must be a number or a flag, got ${shown(value)}`);
        }
        record[2 + i] = +value;
      } else if (value === undefined) {
        record[2 + i] = 0;
      } else if (kind === 3) {
        const tensor = value as Tensor;
        device ??= tensor.device;
        record[at] = i;
        record[at + 1] = dtypeNumber(tensor.dtype);
        record[at + 2] = tensor.shape.length;
        const { shape } = tensor;
        for (let d = 0; d < shape.length; d++) record[at + 3 + d] = shape[d]!;
        at += 3 + shape.length;
        outputs++;
      } else {
        const tensor = this.tensor(names[i]!, value as Tensor);
        device ??= tensor.device;
        record[2 + i] = tensor.id;
      }
    }
    record[0] = this.index;
    record[1] = device === undefined || device === 'cpu' ? 0 : deviceIndex(device);
    record[2 + count] = outputs;
    if (observer === undefined) checked(addon.run());
    else observer(this.name, source, () => checked(addon.run()));
    for (const i of this.outs) {
      const tensor = source[names[i]!] as Tensor | undefined;
      tensor?.adopt(record[2 + i]!);
    }
  }

  private gone(name: string): never {
    throw this.error('ERR_DISPOSED', `${name} is used after its dispose()`);
  }
}

/** The op `name` with its fields in the order of the native struct. */
export const defineOp = <const F extends Fields>(name: string, fields: F): Op<F> => new Op(name, fields);
