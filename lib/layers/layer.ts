// What layers share: the step they work in, and where their state lies. A sequence's constant-size state is one row of a
// slot-major pool (one contiguous copy forks or saves it); what grows or slides with the tokens lies in pages.
import { linattnError } from '../errors';
import type { Sequences } from '../ops/sequences';
import type { DType } from '../tensor/dtype';
import { dtypeBytes } from '../tensor/dtype';
import type { Tensor } from '../tensor/tensor';

/** The packed tokens of one step. */
export interface Step {
  /** Tokens by sequence; its slots are rows of the state pool. */
  readonly sequences: Sequences;
  /** int32 [N]: the row of each sequence in the tables that are indexed by sequence; -1 = nothing. */
  readonly rows: Tensor<'int32'>;
}

/** Activations. */
export type Hidden = Tensor<'float32' | 'bfloat16' | 'float16'>;

export interface Layer {
  /** x [T, C] -> [T, C]. */
  forward(x: Hidden, step: Step): Hidden;
}

/** A float32 part of every state row. */
export class StatePart {
  /** [slots, ...shape], a strided view of the pool; bound before the first step. */
  tensor!: Tensor<'float32'>;

  constructor(
    readonly name: string,
    readonly shape: readonly number[],
    /** Elements from the start of the row. */
    readonly offset: number,
  ) {}
}

/** Adds up the state row of a model. */
export class StateLayout {
  readonly parts: StatePart[] = [];
  private size = 0;

  add(name: string, shape: readonly number[]): StatePart {
    const part = new StatePart(name, shape, this.size);
    // Parts start on 64-byte borders.
    this.size += Math.ceil(shape.reduce((product, dim) => product * dim, 1) / 16) * 16;
    this.parts.push(part);
    return part;
  }

  /** float32 elements a row. */
  get elements(): number {
    return Math.max(this.size, 16);
  }

  /** Of a row. */
  get bytes(): number {
    return this.elements * 4;
  }

  /** Points every part at `pool`, float32 [slots, elements]. */
  bind(pool: Tensor<'float32'>): void {
    const slots = pool.shape[0]!;
    for (const part of this.parts) part.tensor = pool.view([slots, ...part.shape], part.offset, this.elements);
  }
}

/** Tokens a page. */
export const pageTokens = 64;

/** Keys and values of one softmax layer, in pages. */
export class KvPart {
  /** [pages, 2, pageTokens, heads, width], a strided view of its group's pool; bound before the first step. */
  pages!: Tensor;
  /** int32 [sequences, tablePages] of its group. */
  table!: Tensor<'int32'>;

  constructor(
    readonly heads: number,
    readonly width: number,
    /** Elements from the start of a page. */
    readonly offset: number,
  ) {}
}

/** The softmax layers that see the same tokens: all of them, or a window; they share one page table. */
export class KvGroup {
  readonly parts: KvPart[] = [];
  /** Elements a page. */
  pageElements = 0;

  /** @param window tokens that a token sees, itself included; 0 = all */
  constructor(readonly window: number) {}

  add(heads: number, width: number): KvPart {
    const part = new KvPart(heads, width, this.pageElements);
    this.pageElements += 2 * pageTokens * heads * width;
    this.parts.push(part);
    return part;
  }

  bytesPerToken(dtype: DType): number {
    return (this.pageElements / pageTokens) * dtypeBytes(dtype);
  }

  bind(pool: Tensor, table: Tensor<'int32'>): void {
    const pages = pool.shape[0]!;
    for (const part of this.parts) {
      part.pages = pool.view([pages, 2, pageTokens, part.heads, part.width], part.offset, this.pageElements);
      part.table = table;
    }
  }
}

/** Adds up the pages of a model. */
export class KvLayout {
  readonly groups: KvGroup[] = [];

  add(window: number, heads: number, width: number): KvPart {
    let group = this.groups.find((one) => one.window === window);
    if (group === undefined) {
      group = new KvGroup(window);
      this.groups.push(group);
    }
    return group.add(heads, width);
  }
}

/** ERR_MODEL_UNSUPPORTED unless a width fits the kernels. */
export function checkWidth(where: string, name: string, width: number, limit: number): void {
  if (width % 8 === 0 && width > 0 && width <= limit) return;
  throw linattnError('ERR_MODEL_UNSUPPORTED', `${where}: ${name} must be a multiple of 8 up to ${limit}, got ${width}`);
}
