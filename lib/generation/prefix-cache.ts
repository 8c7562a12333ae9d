// States at the beginnings of texts, for all sessions of a model. A state is held on the device by reference; what has to
// leave it goes to the memory of the process, and from there to the store. Nothing here fails a call: a state that is not
// there, or is not what it should be, is a miss.
import { setTimeout } from 'node:timers/promises';
import { GuardedStore } from '../cache/guarded-store';
import { PrefixTree } from '../cache/prefix-tree';
import { Ranking } from '../cache/ranking';
import { Readers } from '../cache/readers';
import type { LinattnError } from '../errors';
import { BlockMemory } from '../state/block-memory';
import { type ByteSource, ValuesSource } from '../state/byte-source';
import { pinFor } from '../state/pin';
import type { Checkpoint, SequenceStore } from '../state/sequence-store';
import { Departures } from './departures';
import { readSnapshot } from './load-snapshot';
import type { ModelCore } from './model-core';
import { type Entry, newEntry, type SavedState } from './prefix-cache-entry';
import type { PrefixCacheSettings } from './prefix-cache-options';
import { noStore, PrefixCacheCounts, type PrefixCacheStats } from './prefix-cache-stats';
import { collected } from './snapshot';

/** Shorter texts are read as fast as their states are fetched. */
const fewestTokens = 32;
/** The store is asked only when it could save the reading of so many tokens beyond the known ones. */
const worthAsking = (known: number): number => Math.max(256, known / 32);
/** States that wait for the store after they left the memory of the process; more of them are given up. */
const mostSpilling = 4;
/** How long a model's dispose waits for the store. */
const flushMs = 10_000;

type Loaded = Checkpoint | 'no room' | 'wrong';

export class PrefixCache {
  private readonly tree = new PrefixTree<Entry>();
  private readonly ranking = new Ranking();
  private readonly onDevice = new Set<Entry>();
  private readonly onHost = new Set<Entry>();
  private hostBytes = 0;
  /** States on their way to the device, and those on their way to the host. */
  private loading = 0;
  readonly departures: Departures;
  private demoting: Promise<unknown> | undefined;
  private saves: Promise<unknown> = Promise.resolve();
  private spilling = 0;
  readonly readers = new Readers();
  readonly counts = new PrefixCacheCounts();
  private readonly ended = new AbortController();
  private readonly outside: GuardedStore | undefined;
  private readonly store: SequenceStore;

  constructor(
    private readonly core: ModelCore,
    readonly settings: PrefixCacheSettings,
  ) {
    this.store = core.scheduler.store;
    this.departures = new Departures(core);
    this.store.giveWay = () => this.giveWay();
    const { store, onStoreError = () => {} } = settings;
    this.outside = store && new GuardedStore(store, core.identity, onStoreError, pinFor(this.store.device));
  }

  /** What it did since the model was loaded, and what it holds. */
  get stats(): PrefixCacheStats {
    const { counts, onDevice, onHost, hostBytes, outside: { counts: stored } = { counts: noStore } } = this;
    const deviceBytes = [...onDevice].reduce((sum, one) => sum + this.store.checkpointBytes(one.checkpoint!), 0);
    return { ...counts, ...stored, deviceStates: onDevice.size, deviceBytes, hostStates: onHost.size, hostBytes };
  }

  /** How many tokens of a text are those of another one that has states here. */
  sharedLength(tokens: Int32Array): number {
    return this.tree.match(tokens).shared;
  }

  /**
   * Keeps a state that stands for `tokens`, as long as it is worth its place.
   * @param lasting it goes to the store now, and not only when it leaves the memory of the process
   */
  offer(tokens: Int32Array, checkpoint: Checkpoint, lasting: boolean): void {
    if (tokens.length < fewestTokens) return;
    const entry = this.entryAt(tokens);
    this.ranking.use(entry);
    this.place(entry, this.store.hold(checkpoint));
    if (lasting) this.save(entry);
  }

  /** The longest state that begins `tokens` and stands for more than `beyond` of them; the caller releases it. */
  async find(tokens: Int32Array, beyond: number, signal: AbortSignal): Promise<Checkpoint | undefined> {
    const held = this.longest(tokens)?.node.length ?? 0;
    return (await this.findOutside(tokens, Math.max(beyond, held), signal)) ?? this.findHeld(tokens, beyond, signal);
  }

  private longest(tokens: Int32Array): Entry | undefined {
    return this.tree.match(tokens).entries.findLast(({ checkpoint, saved }) => (checkpoint ?? saved) !== undefined);
  }

  private async findHeld(tokens: Int32Array, beyond: number, signal: AbortSignal): Promise<Checkpoint | undefined> {
    for (;;) {
      const entry = this.longest(tokens);
      if (entry === undefined || entry.node.length <= beyond) return undefined;
      if (entry.checkpoint !== undefined) {
        this.ranking.use(entry);
        this.save(entry); // asked for again here, it may be elsewhere
        return this.store.hold(entry.checkpoint);
      }
      const { pieces } = entry.saved!;
      const memory = this.outside?.memory ?? new BlockMemory();
      const state = new ValuesSource(async (i, into) => pieces[i] && memory.keep(pieces[i], into), memory);
      const loaded = await this.inPlace(() => this.load(state, tokens, signal)).finally(() => state.release());
      if (loaded === 'no room') return undefined;
      if (loaded !== 'wrong') return this.placeLoaded(tokens, loaded).checkpoint;
      this.dropSaved(entry);
    }
  }

  private async findOutside(tokens: Int32Array, beyond: number, signal: AbortSignal): Promise<Checkpoint | undefined> {
    const { outside } = this;
    if (outside === undefined || tokens.length - beyond < worthAsking(beyond)) return undefined;
    for (const candidate of await outside.candidates(tokens, beyond, signal)) {
      const load = (state: ByteSource) => this.load(state, tokens, signal, candidate.key);
      const loaded = await this.inPlace(() => outside.read(candidate, load, signal)); // before the store is asked for it
      if (loaded === 'no room') return undefined;
      if (loaded === undefined) continue;
      const { entry, checkpoint } = this.placeLoaded(tokens, loaded);
      entry.isStored = true;
      return checkpoint;
    }
    return undefined;
  }

  /** A state that was read back gets its entry; the caller has one more holder. */
  private placeLoaded(tokens: Int32Array, checkpoint: Checkpoint): { entry: Entry; checkpoint: Checkpoint } {
    const entry = this.entryAt(tokens.subarray(0, checkpoint.length));
    this.ranking.use(entry);
    this.place(entry, this.store.hold(checkpoint));
    return { entry, checkpoint };
  }

  /** A saved state on the device, when it is one of this model and stands for the beginning of `tokens` that `key` names. */
  private async load(source: ByteSource, tokens: Int32Array, signal: AbortSignal, key?: string): Promise<Loaded> {
    try {
      const { checkpoint, history } = await readSnapshot(this.core, 'prefixCache', source, signal);
      const isBeginning = history.unknownStart === 0 && history.commonPrefix(tokens) === checkpoint.length;
      const isNamed = key === undefined || this.outside!.lengthOf(key) === checkpoint.length;
      if (isBeginning && isNamed) return checkpoint;
      this.store.release(checkpoint);
      return 'wrong';
    } catch (error) {
      signal.throwIfAborted();
      return (error as LinattnError).code?.startsWith('ERR_SNAPSHOT_') ? 'wrong' : 'no room';
    }
  }

  /** `work` with a place on the device kept for what it reads; 'no room' where there is none. */
  private async inPlace<T>(work: () => Promise<T>): Promise<T | 'no room'> {
    if (!this.trimDevice(1)) return 'no room';
    this.loading++;
    return this.departures.loads.add(work()).finally(() => this.loading--);
  }

  private entryAt(tokens: Int32Array): Entry {
    const node = this.tree.nodeAt(tokens);
    node.entry ??= newEntry(node);
    return node.entry;
  }

  /** Gives an entry its state on the device; it has one holder for it. */
  private place(entry: Entry, checkpoint: Checkpoint): void {
    if (entry.checkpoint !== undefined) {
      this.store.release(checkpoint);
      return;
    }
    entry.checkpoint = checkpoint;
    this.onDevice.add(entry);
    this.trimDevice(0);
  }

  /** Room for `more` states on the device; false when all that are there have only just been asked for. */
  private trimDevice(more: number): boolean {
    while (this.onDevice.size + this.loading + more > this.settings.states) {
      const entry = this.ranking.least(this.onDevice);
      if (entry === undefined) return false;
      // One at a time, so that what leaves never holds more than its share of the device.
      if (entry.saved === undefined && this.fitsHost(entry)) {
        this.demoting ??= this.toHost(entry).finally(() => {
          this.demoting = undefined;
        });
      }
      this.leaveDevice(entry);
    }
    return true;
  }

  private readonly fitsHost = (one: Entry) => this.store.checkpointBytes(one.checkpoint!) <= this.settings.hostBytes;

  private leaveDevice(entry: Entry): void {
    this.ranking.givenUp(entry);
    this.counts.deviceEvictions++;
    this.onDevice.delete(entry);
    this.store.release(entry.checkpoint!);
    entry.checkpoint = undefined;
    this.forgetEmpty(entry);
  }

  /** A session needs a slot or pages at once: states in the cache go first, then those that are being read out of it. */
  private giveWay(): boolean {
    const entry = this.ranking.least(this.onDevice);
    if (entry === undefined) return this.departures.giveWay();
    this.leaveDevice(entry);
    return true;
  }

  private forgetEmpty(entry: Entry): void {
    const { node, checkpoint, saved, busy } = entry;
    if (node.entry === entry && checkpoint === undefined && saved === undefined && busy === 0) this.tree.delete(node);
  }

  /** The state of an entry, saved; kept when there is room; undefined when it gave way or the device fails. */
  private async toHost(entry: Entry): Promise<SavedState | undefined> {
    entry.busy++;
    try {
      const pieces = await collected(this.piecesOf(entry));
      const saved = { pieces, byteLength: pieces.reduce((sum, piece) => sum + piece.byteLength, 0) };
      this.keepSaved(entry, saved);
      return saved;
    } catch {
      return undefined;
    } finally {
      entry.busy--;
      this.forgetEmpty(entry);
    }
  }

  private piecesOf({ checkpoint, node }: Entry): AsyncGenerator<Uint8Array> {
    return this.departures.pieces(checkpoint!, this.tree.tokensOf(node));
  }

  private keepSaved(entry: Entry, saved: SavedState): void {
    if (entry.saved !== undefined || saved.byteLength > this.settings.hostBytes) return;
    entry.saved = saved;
    this.onHost.add(entry);
    this.hostBytes += saved.byteLength;
    while (this.hostBytes > this.settings.hostBytes) {
      const least = this.ranking.least(this.onHost)!;
      this.counts.hostEvictions++;
      if (least.checkpoint === undefined) {
        this.ranking.givenUp(least);
        if (this.spilling < mostSpilling) this.save(least);
      }
      this.dropSaved(least);
    }
  }

  private dropSaved(entry: Entry): void {
    if (!this.onHost.delete(entry)) return;
    this.hostBytes -= entry.saved!.byteLength;
    entry.saved = undefined;
    this.forgetEmpty(entry);
  }

  /** To the store, after those that were saved before. */
  private save(entry: Entry): void {
    const { outside } = this;
    const bytes = entry.saved?.byteLength ?? (entry.checkpoint && this.store.checkpointBytes(entry.checkpoint));
    if (bytes === undefined || !outside?.takes(bytes) || entry.isStored || entry.isSaving) return;
    const key = outside.keyOf(this.tree.tokensOf(entry.node));
    const spilled = entry.checkpoint === undefined ? entry.saved : undefined;
    if (spilled !== undefined) this.spilling++;
    entry.isSaving = true;
    entry.busy++;
    this.saves = this.saves.then(async () => {
      entry.isStored = !this.ended.signal.aborted && (await this.write(outside, key, entry, spilled ?? entry.saved));
      if (spilled !== undefined) this.spilling--;
      entry.isSaving = false;
      entry.busy--;
      this.forgetEmpty(entry);
    });
  }

  /** Whether the store took it. What the host has no room for is written as it is read. */
  private async write(outside: GuardedStore, key: string, entry: Entry, known?: SavedState): Promise<boolean> {
    let pieces: Parameters<GuardedStore['set']>[1] | undefined = known?.pieces;
    if (pieces === undefined && entry.checkpoint !== undefined) {
      pieces = this.fitsHost(entry) ? (await this.toHost(entry))?.pieces : this.piecesOf(entry);
    }
    return pieces !== undefined && outside.set(key, pieces).catch(() => false); // of the device
  }

  /** Writes what is to be written, then lets go of everything. */
  async dispose(): Promise<void> {
    const late = new AbortController();
    await Promise.race([this.saves, setTimeout(flushMs, undefined, { signal: late.signal }).catch(() => undefined)]);
    late.abort();
    this.ended.abort();
    await this.demoting;
    this.outside?.dispose();
    for (const entry of this.onDevice) this.store.release(entry.checkpoint!);
    this.onDevice.clear();
    this.onHost.clear();
  }
}
