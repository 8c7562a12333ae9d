// The mechanisms of `linattn bench --mechanisms`, each as a reader of one sequence.
import { BlockCausalLinformer } from '../layers/block-causal-linformer';
import { type Hidden, pageTokens } from '../layers/layer';
import { LinearAttention, type LinearAttentionOptions } from '../layers/linear-attention';
import type { LinearAttentionState } from '../layers/linear-attention-state';
import { convert } from '../ops/convert';
import { FavorProjection } from '../ops/favor-projection';
import { l2Norm } from '../ops/l2-norm';
import { weightFrom } from '../ops/pack-weight';
import { sequences as sequencesOf } from '../ops/sequences';
import { softmaxAttention } from '../ops/softmax-attention';
import type { DeviceName } from '../tensor/device';
import { scope } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { someValues } from './bench-data';
import type { MechanismDType, Tokens } from './bench-mechanisms-data';

export interface ReaderSizes {
  readonly device: DeviceName;
  readonly dtype: MechanismDType;
  readonly heads: number;
  /** D, of queries, keys and values. */
  readonly width: number;
  /** Most tokens of the sequence, and of one call. */
  readonly capacity: number;
  readonly sliceTokens: number;
}

export interface Reader {
  /** The outputs of the next tokens, [T, H, D] as q. */
  read(tokens: Tokens): Hidden;
  /** The next tokens, whose outputs nobody wants. */
  skip(tokens: Tokens): void;
  /** What comes next is timed as if so many tokens (a multiple of 256) had been read; their content is not defined. */
  seek(position: number): void;
  dispose(): void;
}

export interface MechanismCase {
  readonly name: string;
  readonly about: string;
  /** Whether it stands for softmax attention over the same queries and keys, so that an error says something. */
  readonly approximates: boolean;
  readonly open: (sizes: ReaderSizes) => Reader;
}

/** Softmax attention, over all keys or over a window. */
class SoftmaxReader implements Reader {
  private position = 0;
  private readonly pages: Tensor;
  private readonly pageTable: Tensor<'int32'>;
  private readonly tableRows: Tensor<'int32'>;

  constructor(
    { device, dtype, heads, width, capacity, sliceTokens }: ReaderSizes,
    private readonly window = 0,
  ) {
    const held = window > 0 ? Math.min(window + sliceTokens + 2 * pageTokens, capacity) : capacity;
    const count = Math.ceil(held / pageTokens);
    const numbers = Array.from({ length: count }, (_, page) => page);
    this.pages = Tensor.zeros({ dtype, shape: [count, 2, pageTokens, heads, width], device });
    this.pageTable = Tensor.from(numbers, { dtype: 'int32', shape: [1, count], device });
    this.tableRows = Tensor.from([0], { dtype: 'int32', shape: [1], device });
  }

  private attend({ q, k, v }: Tokens, window: number): Hidden {
    const { pages, pageTable, tableRows } = this;
    const [T, , D] = q.shape as [number, number, number];
    const sequences = sequencesOf([T], { positions: [this.position], device: q.device });
    this.position += T;
    return softmaxAttention({ q, k, v, pages, pageTable, tableRows, sequences, scale: D ** -0.5, window }).out;
  }

  read(tokens: Tokens): Hidden {
    return this.attend(tokens, this.window);
  }

  /** A window of one token writes keys and values, and hardly anything else. */
  skip(tokens: Tokens): void {
    this.attend(tokens, this.window || 1);
  }

  seek(position: number): void {
    this.position = position;
  }

  dispose(): void {
    for (const tensor of [this.pages, this.pageTable, this.tableRows]) tensor.dispose();
  }
}

/** Of the first tokens of a call: decay [T, H] or [T, H, K], beta [T, H]. */
interface Gates {
  readonly decay: Hidden;
  readonly beta?: Tensor<'float32'>;
}

/** A LinearAttention layer and its state; every call has the same gates. */
class LayerReader implements Reader {
  private readonly layer: LinearAttention;
  private readonly state: LinearAttentionState;
  private begun = false;

  constructor(
    { device, heads, width }: ReaderSizes,
    options: LinearAttentionOptions,
    private readonly more: {
      /** For as many tokens as a slice has. */
      gates?: Gates;
      unitKeys?: boolean;
      owned?: { dispose(): void };
    } = {},
  ) {
    this.layer = new LinearAttention(options);
    this.state = this.layer.createState({
      slots: 1,
      heads,
      keyWidth: this.layer.featureWidth(width),
      valueWidth: width,
      device,
    });
  }

  read({ q, k, v }: Tokens): Hidden {
    const T = q.shape[0]!;
    const { gates, unitKeys } = this.more;
    const sequences = sequencesOf([T], { readSlots: [this.begun ? 0 : -1], device: q.device });
    this.begun = true;
    const call = {
      q: unitKeys ? l2Norm({ x: q, eps: 1e-6 }) : q,
      k: unitKeys ? l2Norm({ x: k, eps: 1e-6 }) : k,
      v,
      sequences,
      decay: gates && firstTokens(gates.decay, T),
      beta: gates?.beta && firstTokens(gates.beta, T),
    };
    return this.layer.forward(call, this.state);
  }

  skip(tokens: Tokens): void {
    this.read(tokens);
  }

  seek(): void {}

  dispose(): void {
    const { owned, gates } = this.more;
    for (const one of [this.state, owned, gates?.decay, gates?.beta]) one?.dispose();
  }
}

const firstTokens = <T extends Tensor>(x: T, count: number): T => {
  const [, ...rest] = x.shape;
  return x.view(
    [count, ...rest],
    0,
    rest.reduce((product, size) => product * size, 1),
  ) as T;
};

/** Untrained: each of `slots` mixtures is the mean of as many neighbours of a block. */
class LinformerReader implements Reader {
  private readonly layer: BlockCausalLinformer;
  private readonly projection: Tensor<'float32'>;
  private readonly sequence: ReturnType<BlockCausalLinformer['createSequence']>;

  constructor({ device, dtype, heads, width, capacity }: ReaderSizes, block: number, slots: number) {
    const each = block / slots;
    const mean = Float32Array.from({ length: block * slots }, (_, i) =>
      Math.floor(Math.floor(i / slots) / each) === i % slots ? 1 / each : 0,
    );
    this.projection = Tensor.from(mean, { dtype: 'float32', shape: [block, 1, slots], device });
    this.layer = new BlockCausalLinformer({ keyProjection: this.projection });
    this.sequence = this.layer.createSequence({ capacity, heads, width, dtype, device });
  }

  read({ q, k, v }: Tokens): Hidden {
    return this.layer.forward({ q, k, v }, this.sequence);
  }

  skip(tokens: Tokens): void {
    this.read(tokens);
  }

  seek(position: number): void {
    this.sequence.length = position;
  }

  dispose(): void {
    this.sequence.dispose();
    this.projection.dispose();
  }
}

/** Values in [from, to). */
function gate(shape: readonly number[], [from, to]: [number, number], device: DeviceName): Tensor<'float32'> {
  const data = someValues(shape, to - from, (from + to) / 2);
  return Tensor.from(data, { dtype: 'float32', shape, device });
}

const favor = (directions: number) => (sizes: ReaderSizes) => {
  const { width, device } = sizes;
  const projection = FavorProjection.draw({ directions, width, seed: 1, device });
  const options = { featureMap: { name: 'favor', projection }, normalize: { eps: 0 } } as const;
  return new LayerReader(sizes, options, { owned: projection });
};

const windowTokens = 1024;
const taylorWidth = 16;
const [linformerBlock, linformerSlots] = [256, 16];

function openTaylor(sizes: ReaderSizes): Reader {
  const { width, device, dtype } = sizes;
  const first = Float32Array.from({ length: taylorWidth * width }, (_, i) =>
    i % width === Math.floor(i / width) ? 1 : 0,
  );
  const weight = scope(() => {
    const source = Tensor.from(first, { dtype: 'float32', shape: [taylorWidth, width], device });
    return weightFrom(source, dtype === 'float32' ? 'float32' : 'bfloat16');
  });
  // Of D values, 16 carry 16 / D of a score, on the average.
  const scale = Math.sqrt(width ** 0.5 / taylorWidth);
  const featureMap = { name: 'taylor', scale, projection: { weights: [weight] } } as const;
  return new LayerReader(sizes, { featureMap, normalize: { eps: 1e-6 } }, { owned: weight });
}

export const softmaxName = 'softmax';

export const mechanismCases: readonly MechanismCase[] = [
  {
    name: softmaxName,
    about: 'exact, causal, keys and values of all tokens kept',
    approximates: true,
    open: (sizes) => new SoftmaxReader(sizes),
  },
  {
    name: 'window',
    about: `softmax over the last ${windowTokens} tokens`,
    approximates: true,
    open: (sizes) => new SoftmaxReader(sizes, windowTokens),
  },
  { name: 'FAVOR+ 64', about: '64 positive features, orthogonal', approximates: true, open: favor(64) },
  { name: 'FAVOR+ 256', about: '256 positive features, orthogonal', approximates: true, open: favor(256) },
  {
    name: 'elu1',
    about: 'elu(x) + 1, normalised',
    approximates: true,
    open: (sizes) => new LayerReader(sizes, { featureMap: { name: 'elu1' }, normalize: { eps: 1e-6 } }),
  },
  {
    name: 'Taylor',
    about: `second order on ${taylorWidth} of the values, as Based has it, not trained`,
    approximates: true,
    open: openTaylor,
  },
  {
    name: 'Linformer',
    about: `block-causal, ${linformerSlots} means a block of ${linformerBlock} tokens, not trained`,
    approximates: true,
    open: (sizes) => new LinformerReader(sizes, linformerBlock, linformerSlots),
  },
  {
    name: 'GLA',
    about: 'a decay per channel',
    approximates: false,
    open: (sizes) => {
      const { heads, width, device, dtype, sliceTokens } = sizes;
      const decay = scope(() => convert({ x: gate([sliceTokens, heads, width], [-0.1, 0], device), dtype }));
      return new LayerReader(sizes, { decay: { per: 'channel' }, scale: width ** -0.5 }, { gates: { decay } });
    },
  },
  {
    name: 'GDN',
    about: 'Gated DeltaNet: delta rule, a decay per token, keys of unit length',
    approximates: false,
    open: (sizes) => {
      const { heads, width, device, sliceTokens } = sizes;
      const decay = gate([sliceTokens, heads], [-0.1, 0], device);
      const beta = gate([sliceTokens, heads], [0, 1], device);
      const options = { rule: 'delta', decay: { per: 'token' }, scale: width ** -0.5 } as const;
      return new LayerReader(sizes, options, { gates: { decay, beta }, unitKeys: true });
    },
  },
];
