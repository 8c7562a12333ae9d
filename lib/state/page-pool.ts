// Pages of keys and values for the softmax layers of one group, shared by all sequences, and each sequence's page table.
// Pages are counted: a checkpoint holds the pages it needs, and a page is free when nobody holds it. A windowed group's
// table is a ring, so that its memory does not grow with the tokens.
import { addon, checked } from '../binding/load';
import { linattnError } from '../errors';
import { type KvGroup, pageTokens } from '../layers/layer';
import { type DeviceName, deviceIndex } from '../tensor/device';
import { type DType, dtypeBytes } from '../tensor/dtype';
import { Tensor } from '../tensor/tensor';

export interface PagePoolOptions {
  readonly sequences: number;
  /** Most tokens of a step. */
  readonly stepTokens: number;
  /** Positions of a sequence. */
  readonly contextLength: number;
  /** Tokens of all sequences together that a group without a window keeps at most. */
  readonly capacityTokens: number;
  readonly dtype: DType;
  readonly device: DeviceName;
}

/** The pages that one sequence, or one checkpoint, holds: physical page by table entry, -1 = none. */
export type HeldPages = Int32Array;

/** Entries of the page tables of all sequences together, 1 GiB of them. */
const maxTableEntries = 2 ** 28;

export class PagePool {
  private readonly pages: Tensor;
  private readonly table: Tensor<'int32'>;
  private readonly tablePages: number;
  private readonly free: number[];
  private readonly holders: Uint16Array;
  private readonly pageBytes: number;

  constructor(
    private readonly group: KvGroup,
    private readonly options: PagePoolOptions,
  ) {
    const { sequences, stepTokens, contextLength, capacityTokens, dtype, device } = options;
    const whole = Math.ceil(contextLength / pageTokens);
    const ring = Math.ceil((group.window + stepTokens) / pageTokens) + 2;
    this.tablePages = group.window > 0 ? Math.min(whole, ring) : whole;
    if (sequences * this.tablePages > maxTableEntries) {
      throw linattnError(
        'ERR_OUT_OF_MEMORY',
        `attention: page tables for ${sequences} sequences of ${contextLength} positions; lower maxSequences`,
      );
    }
    // A sequence and its checkpoints: two windows besides its own ring.
    const perSequence = this.tablePages + 2 * (Math.ceil(group.window / pageTokens) + 1);
    const count =
      group.window > 0
        ? sequences * perSequence
        : Math.min(sequences * this.tablePages, Math.ceil(capacityTokens / pageTokens));
    this.pageBytes = group.pageElements * dtypeBytes(dtype);
    this.pages = Tensor.make({ dtype, shape: [count, group.pageElements], device }, true, true);
    this.table = Tensor.make({ dtype: 'int32', shape: [sequences, this.tablePages], device }, false, true);
    this.table.write(new Int32Array(sequences * this.tablePages).fill(-1));
    this.free = Array.from({ length: count }, (_, i) => count - 1 - i);
    this.holders = new Uint16Array(count);
    group.bind(this.pages, this.table);
  }

  /** Takes the memory now: rejects with ERR_OUT_OF_MEMORY when there is not enough. */
  async reserveMemory(): Promise<void> {
    const first = this.pages.view([1], 0, 1);
    await first.read().finally(() => first.dispose());
  }

  /** No pages yet. */
  empty(): HeldPages {
    return new Int32Array(this.tablePages).fill(-1);
  }

  /**
   * Before a step that writes positions [from, to): gives `sequence` the pages it needs. When pages run out nothing has
   * changed that matters, and ERR_OUT_OF_MEMORY is thrown before anything is enqueued.
   */
  reserve(sequence: number, held: HeldPages, from: number, to: number): void {
    let firstChanged = this.tablePages;
    let lastChanged = -1;
    for (let logical = Math.floor(from / pageTokens); logical * pageTokens < to; logical++) {
      const entry = logical % this.tablePages;
      // The page that holds `from` is kept where it has tokens already; any other is new.
      const keeps = logical * pageTokens < from && held[entry]! >= 0;
      if (keeps) continue;
      const page = this.free.pop();
      if (page === undefined) throw this.exhausted();
      if (held[entry]! >= 0) this.drop(held[entry]!);
      this.holders[page] = 1;
      held[entry] = page;
      checked(addon.charge(deviceIndex(this.options.device), this.pageBytes));
      firstChanged = Math.min(firstChanged, entry);
      lastChanged = Math.max(lastChanged, entry);
    }
    if (lastChanged >= 0) {
      this.table.write(held.slice(firstChanged, lastChanged + 1), sequence * this.tablePages + firstChanged);
    }
  }

  private exhausted(): Error {
    const tokens = this.holders.length * pageTokens;
    return linattnError(
      'ERR_OUT_OF_MEMORY',
      `attention: the key-value pages are full: ${tokens} tokens of all sequences together`,
    );
  }

  /** What a checkpoint at `length` tokens must hold: the pages whose tokens are still visible. */
  share(held: HeldPages, length: number): HeldPages {
    const shared = this.empty();
    const { window } = this.group;
    const first = window > 0 ? Math.max(0, length - window) : 0;
    for (let logical = Math.floor(first / pageTokens); logical * pageTokens < length; logical++) {
      const entry = logical % this.tablePages;
      const page = held[entry]!;
      if (page < 0) continue;
      shared[entry] = page;
      this.holders[page]!++;
    }
    return shared;
  }

  /** `sequence` goes back to what a checkpoint holds (or to nothing): `held` becomes its pages. */
  restore(sequence: number, held: HeldPages, checkpoint: HeldPages | undefined): void {
    const wanted = checkpoint ?? this.empty();
    for (const page of wanted) if (page >= 0) this.holders[page]!++;
    this.release(held);
    held.set(wanted);
    this.table.write(held, sequence * this.tablePages);
  }

  /** Gives back every page of `held`. */
  release(held: HeldPages): void {
    for (const page of held) if (page >= 0) this.drop(page);
    held.fill(-1);
  }

  /** Bytes of the window's keys and values; 0 without a window. */
  get windowBytes(): number {
    return (this.group.window / pageTokens) * this.pageBytes;
  }

  /** Bytes of the pages in `held` when they grow with the tokens; 0 with a window. */
  growingBytes(held: HeldPages): number {
    if (this.group.window > 0) return 0;
    return held.reduce((bytes, page) => bytes + (page >= 0 ? this.pageBytes : 0), 0);
  }

  private drop(page: number): void {
    this.holders[page]!--;
    if (this.holders[page] !== 0) return;
    this.free.push(page);
    checked(addon.charge(deviceIndex(this.options.device), -this.pageBytes));
  }

  dispose(): void {
    for (const part of this.group.parts) part.pages.dispose();
    this.table.dispose();
    this.pages.dispose();
  }
}
