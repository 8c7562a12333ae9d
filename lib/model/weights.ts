// From stored tensors to what layers hold: packed weights and float32 vectors. A model is built twice by the same code:
// first against the names and shapes alone, so that all that is missing, unused or of a wrong shape is told at once.
import { addon, checked } from '../binding/load';
import { linattnError } from '../errors';
import { convert, convertInto } from '../ops/convert';
import { countNan } from '../ops/count-nan';
import type { Float } from '../ops/float';
import { packWeight } from '../ops/pack-weight';
import { Weight, type WeightDType } from '../ops/weight';
import type { DeviceName } from '../tensor/device';
import { Tensor } from '../tensor/tensor';
import type { StoredTensor } from './safetensors';

/** Rows [start, start + count) of a stored matrix. */
export type RowRange = readonly [start: number, count: number];

/** One part of a packed weight: a stored matrix [out, in], or some of its rows in the order given. */
export interface Part {
  readonly name: string;
  readonly out: number;
  readonly rows?: readonly RowRange[];
  /** It is stored as [in, out]. */
  readonly transposed?: boolean;
  /** Its sizes where they are more than two: the first ones together are `out`. */
  readonly stored?: readonly number[];
}

/** What a family builds its layers from. */
export interface WeightSource {
  /** Of the activations between the layers. */
  readonly activations: Float;
  has(name: string): boolean;
  /** The parts, stacked along their outputs, as one packed weight [sum of out, inputs]. */
  linear(parts: readonly Part[], inputs: number): Promise<Weight>;
  /** Something made, not read, that is freed with the weights; undefined in the first pass. */
  own<T extends { dispose(): void }>(make: (device: DeviceName) => T): T;
  /** Stored tensors of these sizes, stacked along the first dimension, as float32 in the shape [sum, ...rest]. */
  values(parts: readonly Stored[], shape: readonly number[]): Promise<Tensor<'float32'>>;
  /** What `make` computes from the values of stored tensors, float32 in this shape. For small tensors: it runs here. */
  computed(
    parts: readonly Stored[],
    shape: readonly number[],
    make: (...values: Float32Array[]) => Float32Array,
  ): Promise<Tensor<'float32'>>;
}

/** A stored tensor and its sizes. */
export interface Stored {
  readonly name: string;
  readonly stored: readonly number[];
}

const count = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

const rangesOf = ({ rows, out }: Part): readonly RowRange[] => rows ?? [[0, out]];
const rowsOf = (parts: readonly Part[]): number =>
  parts.flatMap((part) => rangesOf(part)).reduce((sum, [, rows]) => sum + rows, 0);

/** The first pass: nothing is read, and of what is made only the shapes are true. */
export class WeightCheck implements WeightSource {
  private readonly used = new Set<string>();
  private readonly problems: string[] = [];
  readonly activations = 'float32';
  parameters = 0;
  bytes = 0;

  constructor(
    private readonly where: string,
    private readonly stored: ReadonlyMap<string, StoredTensor>,
  ) {}

  has(name: string): boolean {
    return this.stored.has(name);
  }

  private need(name: string, shape: readonly number[]): void {
    const tensor = this.stored.get(name);
    if (tensor === undefined) {
      this.problems.push(`${name} is missing`);
      return;
    }
    if (tensor.shape.length !== shape.length || tensor.shape.some((size, i) => size !== shape[i])) {
      this.problems.push(`${name} must be [${shape.join(', ')}], got [${tensor.shape.join(', ')}]`);
    } else if (!['float32', 'bfloat16', 'float16'].includes(tensor.dtype)) {
      this.problems.push(`${name} must be float32, bfloat16 or float16, got ${tensor.dtype}`);
    }
    if (!this.used.has(name)) {
      this.parameters += count(tensor.shape);
      this.bytes += tensor.byteLength;
    }
    this.used.add(name);
  }

  async linear(parts: readonly Part[], inputs: number): Promise<Weight> {
    for (const { name, out, transposed, stored } of parts) {
      this.need(name, stored ?? (transposed ? [inputs, out] : [out, inputs]));
    }
    return { shape: [rowsOf(parts), inputs] } as Partial<Weight> as Weight;
  }

  async values(parts: readonly Stored[]): Promise<Tensor<'float32'>> {
    for (const part of parts) this.need(part.name, part.stored);
    return undefined as unknown as Tensor<'float32'>;
  }

  computed(parts: readonly Stored[]): Promise<Tensor<'float32'>> {
    return this.values(parts);
  }

  own<T>(): T {
    return undefined as T;
  }

  /** Throws ERR_WEIGHTS with every problem; `ignored` names tensors that the family leaves unread. */
  finish(ignored: RegExp): void {
    const unused = [...this.stored.keys()].filter((name) => !this.used.has(name) && !ignored.test(name));
    const problems = [...this.problems, ...unused.map((name) => `${name} is not used by this model`)];
    if (problems.length === 0) return;
    const shown = problems.slice(0, 20).join('; ');
    const more = problems.length > 20 ? `; and ${problems.length - 20} more` : '';
    throw linattnError('ERR_WEIGHTS', `${this.where}: ${shown}${more}`);
  }

  /** The dtype that most bytes of the matrices are stored in. */
  dominantDType(): 'float32' | 'bfloat16' | 'float16' {
    const bytes = { float32: 0, bfloat16: 0, float16: 0 };
    for (const name of this.used) {
      const tensor = this.stored.get(name)!;
      if (tensor.dtype in bytes) bytes[tensor.dtype as 'float32'] += tensor.byteLength;
    }
    return (Object.keys(bytes) as (keyof typeof bytes)[]).reduce((a, b) => (bytes[b] > bytes[a] ? b : a));
  }
}

export interface LoadWeightsOptions {
  readonly device: DeviceName;
  readonly dtype: WeightDType;
  readonly activations: Float;
  readonly signal: AbortSignal | undefined;
  readonly onBytes: (bytes: number) => void;
}

/** The second pass: reads, converts and packs, one stored tensor at a time. */
export class WeightLoader implements WeightSource {
  private readonly files = new Map<string, number>();
  private readonly made: { dispose(): void }[] = [];
  private readonly nans: { name: string; found: Tensor<'int32'> }[] = [];

  constructor(
    private readonly stored: ReadonlyMap<string, StoredTensor>,
    private readonly options: LoadWeightsOptions,
  ) {}

  has(name: string): boolean {
    return this.stored.has(name);
  }

  get activations(): Float {
    return this.options.activations;
  }

  own<T extends { dispose(): void }>(make: (device: DeviceName) => T): T {
    const made = make(this.options.device);
    this.made.push(made);
    return made;
  }

  /** The stored tensor on the device, as it is stored. */
  private async raw(name: string): Promise<Tensor<Float>> {
    this.options.signal?.throwIfAborted();
    const tensor = this.stored.get(name)!;
    let file = this.files.get(tensor.file);
    if (file === undefined) {
      file = checked(addon.openFile(tensor.file));
      this.files.set(tensor.file, file);
    }
    const dtype = tensor.dtype as Float; // checked in the first pass
    const raw = Tensor.make({ dtype, shape: tensor.shape, device: this.options.device }, false, false);
    try {
      checked(addon.loadFile(file, tensor.offset, raw.live()));
      this.nans.push({ name, found: countNan(raw) });
      await raw.wait();
      this.options.onBytes(tensor.byteLength);
    } catch (error) {
      raw.dispose();
      throw error;
    }
    return raw;
  }

  async linear(parts: readonly Part[], inputs: number): Promise<Weight> {
    const { dtype, device } = this.options;
    const weight = Weight.zeros([rowsOf(parts), inputs], dtype, { device });
    this.made.push(weight);
    let row = 0;
    for (const part of parts) {
      const raw = part.transposed ? await this.transposed(part.name, inputs, part.out) : await this.raw(part.name);
      for (const [start, rows] of rangesOf(part)) {
        const slice = raw.view([rows, inputs], start * inputs, inputs);
        packWeight({ source: slice, weight, row });
        slice.dispose();
        row += rows;
      }
      raw.dispose();
    }
    return weight;
  }

  /** The values of a stored tensor, in this process. */
  private async valuesOf(name: string): Promise<Float32Array> {
    const raw = await this.raw(name);
    const x = raw.dtype === 'float32' ? (raw as Tensor<'float32'>) : convert({ x: raw, dtype: 'float32' });
    try {
      return await x.read();
    } finally {
      x.dispose();
      raw.dispose();
    }
  }

  private async transposed(name: string, rows: number, columns: number): Promise<Tensor<Float>> {
    const values = await this.valuesOf(name);
    const turned = new Float32Array(values.length);
    for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) turned[j * rows + i] = values[i * columns + j]!;
    return Tensor.from(turned, { dtype: 'float32', shape: [columns, rows], device: this.options.device });
  }

  async computed(
    parts: readonly Stored[],
    shape: readonly number[],
    make: (...values: Float32Array[]) => Float32Array,
  ): Promise<Tensor<'float32'>> {
    const values: Float32Array[] = [];
    for (const { name } of parts) values.push(await this.valuesOf(name));
    return this.own((device) => Tensor.from(make(...values), { dtype: 'float32', shape, device }));
  }

  async values(parts: readonly Stored[], shape: readonly number[]): Promise<Tensor<'float32'>> {
    const all = Tensor.make({ dtype: 'float32', shape, device: this.options.device }, false, false);
    this.made.push(all);
    let at = 0;
    for (const part of parts) {
      const raw = await this.raw(part.name);
      const size = count(part.stored);
      const from = raw.view([size], 0, 1);
      const to = all.view([size], at, 1);
      convertInto({ x: from, into: to });
      for (const tensor of [from, to, raw]) tensor.dispose();
      at += size;
    }
    return all;
  }

  /** Closes the files and warns of NaN: what is loaded stays usable, but its output will not be. */
  async finish(): Promise<void> {
    this.close();
    for (const { name, found } of this.nans) {
      const [nans] = await found.read();
      found.dispose();
      if (nans === 0) continue;
      process.emitWarning(`${name} holds ${nans} NaN value${nans === 1 ? '' : 's'}`, {
        type: 'LinattnWarning',
        code: 'LINATTN_NAN_WEIGHTS',
      });
    }
  }

  close(): void {
    for (const file of this.files.values()) addon.closeFile(file);
    this.files.clear();
  }

  /** Frees all that was loaded. */
  dispose(): void {
    this.close();
    for (const item of this.made) item.dispose();
    for (const { found } of this.nans) found.dispose();
  }
}
