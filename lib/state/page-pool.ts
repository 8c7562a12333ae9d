// Pages of keys and values for the softmax layers of one group, shared by all sequences, and each sequence's page table.
// Pages are counted: a checkpoint holds the pages it needs, a page is free when nobody holds it, and one that others hold
// too is copied before it is written. A windowed group's table is a ring, so that its memory does not grow with the tokens.
import { addon, checked } from '../binding/load';
import { linattnError } from '../errors';
import { type KvGroup, pageTokens } from '../layers/layer';
import { type DeviceName, deviceIndex } from '../tensor/device';
import { type DType, dtypeBytes } from '../tensor/dtype';
import { Tensor } from '../tensor/tensor';
import { copySlot } from './copy-slot';

export interface PagePoolOptions {
  readonly sequences: number;
  /** Checkpoints of all sequences, and snapshots. */
  readonly checkpoints: number;
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
  private readonly holders: Uint32Array;
  readonly pageBytes: number;

  constructor(
    readonly group: KvGroup,
    private readonly options: PagePoolOptions,
  ) {
    const { sequences, checkpoints, stepTokens, contextLength, capacityTokens, dtype, device } = options;
    const whole = Math.ceil(contextLength / pageTokens);
    const ring = Math.ceil((group.window + stepTokens) / pageTokens) + 2;
    this.tablePages = group.window > 0 ? Math.min(whole, ring) : whole;
    if (sequences * this.tablePages > maxTableEntries) {
      throw linattnError(
        'ERR_OUT_OF_MEMORY',
        `attention: page tables for ${sequences} sequences of ${contextLength} positions; lower maxSequences`,
      );
    }
    // A checkpoint holds its window, or at least a last page of its own.
    const perCheckpoint = group.window > 0 ? Math.ceil(group.window / pageTokens) + 1 : this.tablePages;
    const most = sequences * (this.tablePages + 1) + checkpoints * perCheckpoint;
    const count = group.window > 0 ? most : Math.min(most, Math.ceil(capacityTokens / pageTokens));
    if (count < 1) {
      throw linattnError(
        'ERR_OUT_OF_MEMORY',
        'attention: weights and states leave no memory for keys and values; lower maxSequences or maxSnapshots',
      );
    }
    this.pageBytes = group.pageElements * dtypeBytes(dtype);
    this.pages = Tensor.make({ dtype, shape: [count, group.pageElements], device }, true, true);
    this.table = Tensor.make({ dtype: 'int32', shape: [sequences, this.tablePages], device }, false, true);
    this.table.write(new Int32Array(sequences * this.tablePages).fill(-1));
    this.free = Array.from({ length: count }, (_, i) => count - 1 - i);
    this.holders = new Uint32Array(count);
    group.bind(this.pages, this.table);
  }

  /** Takes the memory now: rejects with ERR_OUT_OF_MEMORY when there is not enough. */
  async reserveMemory(): Promise<void> {
    const first = this.pages.view([1], 0, 1);
    await first.read().finally(() => first.dispose());
  }

  get dtype(): DType {
    return this.options.dtype;
  }

  /** No pages yet. */
  empty(): HeldPages {
    return new Int32Array(this.tablePages).fill(-1);
  }

  /**
   * Before a step that writes positions [from, to): gives `sequence` the pages it needs, and pages of its own in place of
   * shared ones. ERR_OUT_OF_MEMORY when pages run out, and then nothing has changed.
   */
  reserve(sequence: number, held: HeldPages, from: number, to: number): void {
    const wanted: { entry: number; copied: boolean }[] = [];
    for (let logical = Math.floor(from / pageTokens); logical * pageTokens < to; logical++) {
      const entry = logical % this.tablePages;
      // A page of its own is written in place: the ring is long enough that what it held is out of every window.
      if (held[entry]! >= 0 && this.holders[held[entry]!] === 1) continue;
      // Only the page that holds `from` may have tokens that stay.
      wanted.push({ entry, copied: logical * pageTokens < from && held[entry]! >= 0 });
    }
    if (wanted.length === 0) return;
    if (wanted.length > this.free.length) throw this.exhausted();
    for (const { entry, copied } of wanted) {
      const page = this.take();
      if (copied) copySlot(this.pages, held[entry]!, page);
      if (held[entry]! >= 0) this.drop(held[entry]!);
      held[entry] = page;
    }
    const entries = wanted.map(({ entry }) => entry);
    const [first, last] = [Math.min(...entries), Math.max(...entries)];
    this.table.write(held.slice(first, last + 1), sequence * this.tablePages + first);
  }

  private take(): number {
    const page = this.free.pop();
    if (page === undefined) throw this.exhausted();
    this.holders[page] = 1;
    checked(addon.charge(deviceIndex(this.options.device), this.pageBytes));
    return page;
  }

  private exhausted(problem = 'the key-value pages are full'): Error {
    const tokens = this.holders.length * pageTokens;
    return linattnError('ERR_OUT_OF_MEMORY', `attention: ${problem}: ${tokens} tokens of all sequences together`);
  }

  /** The pages whose tokens are still visible after `length` tokens, counted from the start of the sequence. */
  visible(length: number): { readonly first: number; readonly end: number } {
    const { window } = this.group;
    const start = window > 0 ? Math.max(0, length - window) : 0;
    return { first: Math.floor(start / pageTokens), end: Math.ceil(length / pageTokens) };
  }

  /** The physical page of a page counted from the start of the sequence; -1 when `held` has none. */
  pageOf(held: HeldPages, logical: number): number {
    return held[logical % this.tablePages]!;
  }

  /** What a checkpoint at `length` tokens must hold. */
  share(held: HeldPages, length: number): HeldPages {
    const shared = this.empty();
    const { first, end } = this.visible(length);
    for (let logical = first; logical < end; logical++) {
      const page = this.pageOf(held, logical);
      if (page < 0) continue;
      shared[logical % this.tablePages] = page;
      this.holders[page]!++;
    }
    return shared;
  }

  /** New pages for a checkpoint at `length` tokens. ERR_OUT_OF_MEMORY when there are not enough. */
  allocate(length: number): HeldPages {
    const held = this.empty();
    const { first, end } = this.visible(length);
    if (end - first > Math.min(this.free.length, this.tablePages)) throw this.exhausted();
    for (let logical = first; logical < end; logical++) held[logical % this.tablePages] = this.take();
    return held;
  }

  /**
   * Reads what a page holds from `offset` on, [pageElements] in the order of the group's parts, into `target`; both in
   * bytes, whole elements.
   */
  async readPage(page: number, offset: number, target: Uint8Array): Promise<void> {
    const bytes = dtypeBytes(this.dtype);
    const view = this.pages.view([target.length / bytes], (page * this.pageBytes + offset) / bytes, 1);
    await view.readInto(target).finally(() => view.dispose());
  }

  /** Enqueues the write of a page from `offset` (bytes) on; `content` stays as it is until this resolves. */
  writePage(page: number, offset: number, content: Uint8Array): Promise<void> {
    return this.pages.writeHeld(content, page * this.pageBytes + offset);
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

  /** Pages that nobody holds. */
  get freePages(): number {
    return this.free.length;
  }

  /** Pages that `length` tokens take, as far as the pool and a table go; 0 with a window: those are always there. */
  growingPages(length: number): number {
    if (this.group.window > 0) return 0;
    return Math.min(Math.ceil(length / pageTokens), this.holders.length, this.tablePages);
  }

  /** ERR_OUT_OF_MEMORY when `length` tokens of one sequence are more than all pages. */
  checkLength(length: number): void {
    if (this.group.window > 0 || length <= this.holders.length * pageTokens) return;
    throw this.exhausted(`${length} tokens are more than the key-value pages hold`);
  }

  /** Of the first `most` pages of a sequence, those that are not in `held`. */
  missing(held: HeldPages, most: number): number {
    let count = 0;
    for (let entry = 0; entry < most; entry++) if (held[entry]! < 0) count++;
    return count;
  }

  /** Bytes of the pages in `held`. */
  bytesOf(held: HeldPages): number {
    return held.reduce((bytes, page) => bytes + (page >= 0 ? this.pageBytes : 0), 0);
  }

  /** Bytes of the pages in `held` when they grow with the tokens; 0 with a window. */
  growingBytes(held: HeldPages): number {
    return this.group.window > 0 ? 0 : this.bytesOf(held);
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
