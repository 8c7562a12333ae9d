// The device side of every sequence of a model: state slots, pages, the step table and the sampling tables. All are sized
// once, so that recorded steps can name them; what varies between steps lives in the tables, by slot.
import { type LinattnError, linattnError } from '../errors';
import { type KvLayout, pageTokens, type StateLayout } from '../layers/layer';
import { stepRow, stepRowInts } from '../ops/begin-step';
import type { DeviceName } from '../tensor/device';
import { Tensor } from '../tensor/tensor';
import { type HeldPages, PagePool } from './page-pool';
import { SamplingTables } from './sampling-tables';
import { type Checkpoint, type SequenceState, spareCheckpoints } from './sequence-state';
import { StatePool } from './state-pool';
import { checkpointsKept } from './state-slots';
import type { StoreOptions } from './store-options';

/** Stop ids a sequence can have. */
export const maxStopIds = 16;

export type { Checkpoint, SequenceState } from './sequence-state';

export class SequenceStore {
  /** int32 [sequences, 16]: see beginStep. */
  readonly table: Tensor<'int32'>;
  /** int32 [sequences, maxStopIds] */
  readonly stopIds: Tensor<'int32'>;
  readonly sampling: SamplingTables;
  readonly states: StatePool;
  readonly pagePools: readonly PagePool[];
  /** Frees a state that is kept only in case it is asked for again; false when there is none. */
  giveWay: () => boolean = () => false;
  /** Called when a sequence or pages have become free. */
  onFreed: () => void = () => undefined;
  private readonly free: number[];
  private readonly opened = new Set<SequenceState>();
  /** Some layer keeps every token, so the positions have an end. */
  private readonly bounded: boolean;

  constructor(
    readonly layout: StateLayout,
    kv: KvLayout,
    private readonly options: StoreOptions,
  ) {
    const { device, sequences, vocabularySize, contextLength, stepTokens, kvDType, kvCapacityTokens } = options;
    this.states = new StatePool(layout, options.states, device);
    const sizes = { sequences, checkpoints: options.states - sequences * 2, stepTokens, contextLength };
    const pages = { ...sizes, capacityTokens: kvCapacityTokens, dtype: kvDType, device };
    this.bounded = kv.groups.some((group) => group.window === 0);
    this.pagePools = kv.groups.map((group) => new PagePool(group, pages));
    this.table = Tensor.make({ dtype: 'int32', shape: [sequences, stepRowInts], device }, true, true);
    this.stopIds = Tensor.make({ dtype: 'int32', shape: [sequences, maxStopIds], device }, true, true);
    this.sampling = new SamplingTables({ slots: sequences, vocabularySize, device });
    this.free = Array.from({ length: sequences }, (_, i) => sequences - 1 - i);
  }

  get device(): DeviceName {
    return this.options.device;
  }

  get vocabularySize(): number {
    return this.options.vocabularySize;
  }

  /** Bytes of one sequence that do not depend on its length: its state and the windows of its softmax layers. */
  get stateBytes(): number {
    return this.states.slotBytes + this.pagePools.reduce((bytes, pool) => bytes + pool.windowBytes, 0);
  }

  /** Takes the memory of the pools now: rejects with ERR_OUT_OF_MEMORY when there is not enough. */
  async reserveMemory(): Promise<void> {
    await this.states.reserveMemory();
    for (const pool of this.pagePools) await pool.reserveMemory();
  }

  /** Does what takes slots or pages, as soon as there are enough: what is only kept for later gives way. */
  private withRoom<T>(take: () => T): T {
    for (;;) {
      try {
        return take();
      } catch (error) {
        if ((error as LinattnError).code !== 'ERR_OUT_OF_MEMORY' || !this.giveWay()) throw error;
      }
    }
  }

  /** What takes `count` states; where too few are left, sequences keep one checkpoint each. */
  private takeStates<T>(count: number, take: () => T): T {
    return this.withRoom(() => {
      this.dropSpares(count);
      return take();
    });
  }

  /** Drops spare checkpoints until `count` states are free, or there are none. */
  private dropSpares(count: number): void {
    if (this.states.vacant >= count) return;
    for (const [spare, sequences] of spareCheckpoints(this.opened)) {
      if (this.states.vacant >= count) return;
      for (const { checkpoints } of sequences) {
        checkpoints.splice(checkpoints.indexOf(spare), 1);
        this.release(spare);
      }
    }
  }

  /** A new sequence, empty or at a checkpoint, which it then holds too. ERR_OUT_OF_MEMORY when `sequences` are open. */
  open(from?: Checkpoint): SequenceState {
    const slot = this.free.at(-1);
    if (slot === undefined) {
      throw linattnError(
        'ERR_OUT_OF_MEMORY',
        `session: ${this.options.sequences} sequences are open, the most that maxSequences allows`,
      );
    }
    const sequence: SequenceState = {
      slot,
      halves: this.takeStates(2, () => this.states.takeTwo()),
      pages: this.pagePools.map((pool) => pool.empty()),
      length: 0,
      logits: undefined,
      checkpoints: [],
    };
    this.free.pop();
    this.opened.add(sequence);
    this.table.write(new Int32Array(stepRowInts), slot * stepRowInts);
    if (from === undefined) {
      this.writeRow(sequence, 0);
    } else {
      sequence.checkpoints.push(this.hold(from));
      this.rewind(sequence, from);
    }
    return sequence;
  }

  close(sequence: SequenceState): void {
    this.opened.delete(sequence);
    while (sequence.checkpoints.length > 0) this.dropOldest(sequence);
    for (const [i, pool] of this.pagePools.entries()) pool.release(sequence.pages[i]!);
    for (const half of sequence.halves) this.states.give(half);
    this.free.push(sequence.slot);
    this.onFreed();
  }

  /** Sequences that can still be opened. */
  get vacancies(): number {
    return this.free.length;
  }

  /** Committed state in the first half, or nothing when `length` is 0. */
  private writeRow(sequence: SequenceState, length: number): void {
    const row = new Int32Array(stepRow.processed); // what is beyond is the device's own
    const [first, second] = sequence.halves;
    row[stepRow.read] = length > 0 ? first : -1;
    row[stepRow.write] = length > 0 ? second : first;
    row[stepRow.spare] = second;
    row[stepRow.length] = length;
    this.table.write(row, sequence.slot * stepRowInts);
    sequence.length = length;
  }

  /** What the device says of a sequence, once the commands so far are done. */
  async readRow(sequence: SequenceState): Promise<{ read: number; length: number; processed: number }> {
    const view = this.table.view([stepRowInts], sequence.slot * stepRowInts, 1);
    try {
      const row = await view.read();
      return { read: row[stepRow.read]!, length: row[stepRow.length]!, processed: row[stepRow.processed]! };
    } finally {
      view.dispose();
    }
  }

  /** Sets fields of a sequence's row that follow each other, from `field` on. */
  setRow(sequence: SequenceState, field: keyof typeof stepRow, ...values: number[]): void {
    this.table.write(Int32Array.from(values), sequence.slot * stepRowInts + stepRow[field]);
  }

  setStopIds(sequence: SequenceState, ids: readonly number[]): void {
    const row = new Int32Array(maxStopIds).fill(-1);
    row.set(ids.slice(0, maxStopIds));
    this.stopIds.write(row, sequence.slot * maxStopIds);
  }

  /** ERR_ARGUMENT unless a sequence of `length` tokens has positions in the model, ERR_OUT_OF_MEMORY unless it has pages. */
  checkLength(length: number): void {
    for (const pool of this.pagePools) pool.checkLength(length);
    if (length > this.options.contextLength && this.bounded) {
      throw linattnError(
        'ERR_ARGUMENT',
        `session: ${length} tokens are more than the model's ${this.options.contextLength} positions`,
      );
    }
  }

  /**
   * Pages for the tokens [from, to) of a step. Returns up to which token the sequence may be written without being asked
   * again, unless its pages come to be shared before.
   */
  reserve(sequence: SequenceState, from: number, to: number): number {
    this.checkLength(to);
    const { slot, pages } = sequence;
    for (const [i, pool] of this.pagePools.entries()) this.withRoom(() => pool.reserve(slot, pages[i]!, from, to));
    const pageEnd = Math.ceil(to / pageTokens) * pageTokens;
    return this.bounded ? Math.min(pageEnd, this.options.contextLength) : pageEnd;
  }

  /** Keeps the committed state with the logits of its next token; the oldest of three, or all before it, are dropped. */
  async checkpoint(sequence: SequenceState, logits: Tensor<'float32'>): Promise<void> {
    const { read } = await this.readRow(sequence);
    while (sequence.checkpoints.length >= checkpointsKept) this.dropOldest(sequence);
    this.dropSpares(1);
    while (this.states.vacant === 0 && sequence.checkpoints.length > 0) this.dropOldest(sequence);
    const slot = this.takeStates(1, () => this.states.take());
    this.states.copy(read, slot);
    const { length } = sequence;
    const pages = this.pagePools.map((pool, i) => pool.share(sequence.pages[i]!, length));
    sequence.checkpoints.push({ length, slot, pages, logits, holders: 1 });
    sequence.logits = logits;
  }

  /** A checkpoint whose state and pages are still to be written; `logits` becomes its own. ERR_OUT_OF_MEMORY */
  emptyCheckpoint(length: number, logits: Tensor<'float32'>): Checkpoint {
    this.checkLength(length);
    const slot = this.takeStates(1, () => this.states.take());
    const pages: HeldPages[] = [];
    try {
      for (const pool of this.pagePools) pages.push(this.withRoom(() => pool.allocate(length)));
    } catch (error) {
      this.states.give(slot);
      for (const [i, held] of pages.entries()) this.pagePools[i]!.release(held);
      throw error;
    }
    return { length, slot, pages, logits, holders: 1 };
  }

  /** One more holder of a checkpoint. */
  hold(checkpoint: Checkpoint): Checkpoint {
    checkpoint.holders++;
    return checkpoint;
  }

  /** Back to a checkpoint, or to nothing; later checkpoints are dropped. */
  rewind(sequence: SequenceState, checkpoint: Checkpoint | undefined): void {
    while (sequence.checkpoints.length > 0 && sequence.checkpoints.at(-1) !== checkpoint) {
      this.release(sequence.checkpoints.pop()!);
    }
    for (const [i, pool] of this.pagePools.entries()) {
      pool.restore(sequence.slot, sequence.pages[i]!, checkpoint?.pages[i]);
    }
    if (checkpoint !== undefined) this.states.copy(checkpoint.slot, sequence.halves[0]);
    this.writeRow(sequence, checkpoint?.length ?? 0);
    sequence.logits = checkpoint?.logits;
    this.onFreed();
  }

  /** Forward to a checkpoint that another sequence made of the same tokens; the sequence holds it too. */
  adopt(sequence: SequenceState, checkpoint: Checkpoint): void {
    while ((sequence.checkpoints.at(-1)?.length ?? 0) >= checkpoint.length) this.dropNewest(sequence);
    while (sequence.checkpoints.length >= checkpointsKept) this.dropOldest(sequence);
    sequence.checkpoints.push(this.hold(checkpoint));
    this.rewind(sequence, checkpoint);
  }

  /** The sequence keeps its state, but neither a checkpoint of it nor the logits of the next token. */
  dropNewest(sequence: SequenceState): void {
    sequence.logits = undefined;
    this.release(sequence.checkpoints.pop()!);
  }

  private dropOldest(sequence: SequenceState): void {
    const checkpoint = sequence.checkpoints.shift()!;
    if (sequence.logits === checkpoint.logits) sequence.logits = undefined;
    this.release(checkpoint);
  }

  /** One holder less. */
  release(checkpoint: Checkpoint): void {
    checkpoint.holders--;
    if (checkpoint.holders > 0) return;
    this.states.give(checkpoint.slot);
    checkpoint.logits.dispose();
    for (const [i, pool] of this.pagePools.entries()) pool.release(checkpoint.pages[i]!);
    this.onFreed();
  }

  /** Bytes of a checkpoint: its state, its pages, and the logits of its next token. */
  checkpointBytes(checkpoint: Checkpoint): number {
    const pages = this.pagePools.reduce((bytes, pool, i) => bytes + pool.bytesOf(checkpoint.pages[i]!), 0);
    return this.states.slotBytes + pages + checkpoint.logits.byteLength;
  }

  /** The constant part of a sequence's state, and its keys and values that grow with the tokens. */
  bytesOf(sequence: SequenceState): { stateBytes: number; kvBytes: number } {
    const kvBytes = this.pagePools.reduce((bytes, pool, i) => bytes + pool.growingBytes(sequence.pages[i]!), 0);
    return { stateBytes: this.stateBytes, kvBytes };
  }

  dispose(): void {
    this.states.dispose(this.layout);
    for (const pool of this.pagePools) pool.dispose();
    for (const one of [this.table, this.stopIds, this.sampling]) one.dispose();
  }
}
