// Memory for blocks of saved states, used again and again: new memory costs as much as the reading of a block, and V8
// collects garbage whenever it has heard of 64 MB more.

/** Blocks in memory while a state is read. */
export const blocksAtOnce = 6;
/** With the first one, which stays until the state is loaded. */
export const reservedBlocks = blocksAtOnce + 1;
/** Of a block and its checksum, and before the first one a header. */
const wholeBytes = 2 ** 24 + 2 ** 16;
/** Less than this is as quickly made anew. */
const fewestBytes = 2 ** 16;

const newMemory = (bytes: number): ArrayBuffer => Buffer.allocUnsafeSlow(bytes).buffer as ArrayBuffer;

export class BlockMemory {
  private readonly free: ArrayBuffer[];
  private readonly taken = new WeakSet<ArrayBufferLike>();

  /** @param isReserved as many blocks as a load takes are there from the start, and stay; else all that one load gives back */
  constructor(private readonly isReserved = false) {
    this.free = isReserved ? Array.from({ length: reservedBlocks }, () => newMemory(wholeBytes)) : [];
  }

  /** For a value whose size is not known yet: a reserved one. */
  whole(): Uint8Array | undefined {
    return this.isReserved ? this.take(wholeBytes) : undefined;
  }

  /** Of undefined content. */
  take(bytes: number): Uint8Array {
    if (bytes < fewestBytes) return new Uint8Array(bytes);
    const found = this.free.findIndex(({ byteLength }) => byteLength >= bytes);
    const made = () => newMemory(this.isReserved ? Math.max(bytes, wholeBytes) : bytes);
    const memory = found < 0 ? made() : this.free.splice(found, 1)[0]!;
    this.taken.add(memory);
    return new Uint8Array(memory, 0, bytes);
  }

  /** What take() gave, or a part of it, is not used any more. Other memory is left alone. */
  give({ buffer }: Uint8Array): void {
    if (!this.taken.delete(buffer) || buffer.byteLength === 0) return; // or it has gone to another thread
    if (!this.isReserved || this.free.length < reservedBlocks) this.free.push(buffer as ArrayBuffer);
  }
}
