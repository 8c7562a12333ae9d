// Memory for blocks of saved states, used again and again: new memory costs as much as the reading of a block, and V8
// collects garbage whenever it has heard of 64 MB more.
import { markAsUntransferable } from 'node:worker_threads';

/** Blocks in memory while a state is read: while one third is checked and copied the store still has enough to do. */
export const blocksAtOnce = 8;
/** With the first one, which stays until the state is loaded. */
export const reservedBlocks = blocksAtOnce + 1;
/** Of a block and its checksum, and before the first one a header. */
const wholeBytes = 2 ** 24 + 2 ** 16;
/** Less than this is as quickly made anew. */
const fewestBytes = 2 ** 16;
/** Before and behind a reserved block, more than a page of the system: whole pages are pinned, and a block lies in them. */
const edgeBytes = 2 ** 16;

/** Pins memory for a device. What it returns takes that back, and waits for the device's copies out of the memory. */
export type Pin = (memory: Uint8Array) => () => void;

const newMemory = (bytes: number): ArrayBuffer => Buffer.allocUnsafeSlow(bytes).buffer as ArrayBuffer;

export class BlockMemory {
  private free: ArrayBuffer[];
  /** The blocks that are there from the start. */
  private readonly reserved: ReadonlySet<ArrayBufferLike>;
  private unpins: (() => void)[] = [];
  private readonly edge: number;
  private readonly isReserved: boolean;
  private readonly taken = new WeakSet<ArrayBufferLike>();

  /**
   * @param pin as many blocks as a load takes are there from the start, pinned by it, and stay until dispose(); else all
   * that one load gives back
   */
  constructor(pin?: Pin) {
    this.isReserved = pin !== undefined;
    this.edge = this.isReserved ? edgeBytes : 0;
    this.free = Array.from({ length: this.isReserved ? reservedBlocks : 0 }, () => this.made(wholeBytes));
    this.reserved = new Set(this.free);
    for (const one of this.free) markAsUntransferable(one); // its pages would go, and stay pinned
    if (pin !== undefined) this.unpins = this.free.map((one) => pin(new Uint8Array(one)));
  }

  /** For a value whose size is not known yet: a reserved one. */
  whole(): Uint8Array | undefined {
    return this.isReserved ? this.take(wholeBytes) : undefined;
  }

  /** Of undefined content. */
  take(bytes: number): Uint8Array {
    if (bytes < fewestBytes) return new Uint8Array(bytes);
    const found = this.free.findIndex(({ byteLength }) => byteLength >= bytes + 2 * this.edge);
    const made = () => this.made(this.isReserved ? Math.max(bytes, wholeBytes) : bytes);
    const memory = found < 0 ? made() : this.free.splice(found, 1)[0]!;
    this.taken.add(memory);
    return new Uint8Array(memory, this.edge, bytes);
  }

  private made(bytes: number): ArrayBuffer {
    return newMemory(bytes + 2 * this.edge);
  }

  /** What take() gave, or a part of it, is not used any more. Other memory is left alone. */
  give({ buffer }: Uint8Array): void {
    if (!this.taken.delete(buffer) || buffer.byteLength === 0) return; // or it has gone to another thread
    if (!this.isReserved || this.reserved.has(buffer)) this.free.push(buffer as ArrayBuffer);
  }

  /**
   * A value where nobody else changes it: as it is where it is a part of `memory`, else copied there, or, where it does not
   * fit, to other memory; `memory` is given back then.
   */
  keep(value: Uint8Array, memory?: Uint8Array): Uint8Array {
    if (value.buffer === memory?.buffer) return value;
    const isRoomy = memory !== undefined && memory.length >= value.length;
    if (memory !== undefined && !isRoomy) this.give(memory);
    const copy = isRoomy ? memory.subarray(0, value.length) : this.take(value.length);
    copy.set(value);
    return copy;
  }

  /** Waits for the device's copies out of it. What is taken stays with its holder. */
  dispose(): void {
    for (const unpin of this.unpins) unpin();
    this.unpins = [];
    this.free = [];
  }
}
