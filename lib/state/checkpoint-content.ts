// What a checkpoint holds, as the sections of a saved state: its tokens where they are saved, the logits of the next token,
// each part of the state by its name, zeros up to a multiple of 64 bytes, and for each group of softmax layers the pages
// that are still visible, from the oldest to the newest. Pages, and a state in float32, go between blocks of the file and the
// device as they are; the rest, the front, goes through the memory of JavaScript.
import { type KvGroup, pageTokens, type StatePart } from '../layers/layer';
import { dtypeBytes } from '../tensor/dtype';
import { Tensor } from '../tensor/tensor';
import { bytesOf } from './byte-source';
import { joined, type PageSpan, pageSpans, stateSpans, visiblePages } from './content-spans';
import type { Checkpoint, SequenceStore } from './sequence-store';
import type { Content, FramedReader } from './snapshot-format';
import { decodePart, encodePart, partBytes, type StateDType, storedPart } from './state-dtype';

export interface Section {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
}

/** What the sizes of the sections follow from. */
export interface ContentKind {
  readonly length: number;
  readonly stateDtype: StateDType;
  /** The token ids are saved too. */
  readonly hasTokens: boolean;
}

const alignment = 64;

const count = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/** The sections of a state of `length` tokens, in their order; the token ids, which may come before them, are not told. */
export function sectionsOf(store: SequenceStore, length: number, stateDtype: StateDType): Section[] {
  const parts = store.layout.parts.map(({ name, shape }) => {
    const { dtype, row } = storedPart(shape, stateDtype);
    return { name, dtype: row > 0 ? `${dtype}, after a float32 scale for every ${row}` : dtype, shape };
  });
  const groups = store.pagePools.map((pool, i) => {
    const { first, end } = pool.visible(length);
    const { window, parts: layers } = pool.group;
    const page = layers.map(({ heads, width }) => `2 x ${pageTokens} x ${heads} x ${width}`).join(' + ');
    const name = `keys and values ${i}, window ${window}, pages from ${first}: ${page}`;
    return { name, dtype: pool.dtype, shape: [end - first, pool.group.pageElements] };
  });
  return [{ name: 'logits', dtype: 'float32', shape: [store.vocabularySize] }, ...parts, ...groups];
}

/** The tokens and the logits. */
const headBytes = (store: SequenceStore, { length, hasTokens }: ContentKind): number =>
  (hasTokens ? length * 4 : 0) + store.vocabularySize * 4;

/** All before the pages. */
function frontBytes(store: SequenceStore, kind: ContentKind): number {
  const arrays = store.layout.parts.flatMap(({ shape }) => partBytes(count(shape), storedPart(shape, kind.stateDtype)));
  const bytes = arrays.reduce((sum, one) => sum + one, headBytes(store, kind));
  return Math.ceil(bytes / alignment) * alignment;
}

function contentBytes(store: SequenceStore, kind: ContentKind): number {
  const pages = store.pagePools.map((pool) => visiblePages(pool, kind.length) * pool.pageBytes);
  return pages.reduce((sum, one) => sum + one, frontBytes(store, kind));
}

/**
 * The content of a checkpoint, which must be held until the last of it is filled in.
 * @param tokens to be saved too
 * @param turn resolves when the device may be asked for the next part
 */
export async function contentOf(
  store: SequenceStore,
  checkpoint: Checkpoint,
  stateDtype: StateDType,
  tokens: Int32Array | undefined,
  turn = async (): Promise<void> => undefined,
): Promise<Content> {
  const kind = { length: checkpoint.length, stateDtype, hasTokens: tokens !== undefined };
  const isPlain = stateDtype === 'float32';
  const [head, beforePages] = [headBytes(store, kind), frontBytes(store, kind)];
  const front = new Uint8Array(isPlain ? head : beforePages);
  let at = 0;
  const add = (array: ArrayBufferView) => {
    front.set(bytesOf(array), at);
    at += array.byteLength;
  };
  if (tokens !== undefined) add(tokens);
  add(await checkpoint.logits.read());
  if (!isPlain) {
    const row = await store.states.read(checkpoint.slot);
    for (const { shape, offset } of store.layout.parts) {
      const values = row.subarray(offset, offset + count(shape));
      for (const array of encodePart(values, storedPart(shape, stateDtype))) add(array);
    }
  }
  const fill = async (target: Uint8Array, from: number) => {
    const to = from + target.length;
    if (from < front.length) target.set(front.subarray(from, to));
    for (const { offset, start, end } of isPlain ? stateSpans(store.layout, head, from, to) : []) {
      await turn();
      await store.states.readPart(checkpoint.slot, offset, target.subarray(start, end));
    }
    for (const span of pageSpans(store, checkpoint, beforePages, from, to)) {
      const part = target.subarray(span.start, span.end);
      await turn();
      await span.pool.readPage(span.page, span.offset, part);
      clearBeyond(span, part);
    }
  };
  return { bytes: contentBytes(store, kind), fill };
}

/** What lies behind the tokens of a page is of steps that did not count, or of sequences before: nobody else's business. */
function clearBeyond({ pool, offset, tokens }: PageSpan, part: Uint8Array): void {
  if (tokens >= pageTokens) return;
  const bytes = dtypeBytes(pool.dtype);
  for (const { start, row } of keysAndValues(pool.group)) {
    const [from, to] = [start + tokens * row, start + pageTokens * row].map((element) => element * bytes - offset);
    part.fill(0, Math.max(0, from!), Math.max(0, to!));
  }
}

/** Where a page has the keys or values of a layer, `row` elements a token. */
const keysAndValues = (group: KvGroup): { start: number; row: number }[] =>
  group.parts.flatMap(({ offset, heads, width }) => {
    const row = heads * width;
    return [offset, offset + pageTokens * row].map((start) => ({ start, row }));
  });

/**
 * A new checkpoint with the content that comes next in `reader`, and the tokens that were saved with it. Nothing is kept
 * where the content proves false.
 */
export async function readContent(
  store: SequenceStore,
  reader: FramedReader,
  kind: ContentKind,
): Promise<{ checkpoint: Checkpoint; tokens: Int32Array | undefined }> {
  const vocabulary = store.vocabularySize;
  store.checkLength(kind.length);
  const logits = Tensor.make({ dtype: 'float32', shape: [1, vocabulary], device: store.device }, false, false);
  let checkpoint: Checkpoint;
  try {
    checkpoint = store.emptyCheckpoint(kind.length, logits);
  } catch (error) {
    logits.dispose();
    throw error;
  }
  let tokens: Int32Array | undefined;
  const isPlain = kind.stateDtype === 'float32';
  const [head, beforePages] = [headBytes(store, kind), frontBytes(store, kind)];
  const front = new Front(isPlain ? head : beforePages, (bytes) => {
    tokens = placeFront(store, checkpoint, kind, bytes);
  });
  try {
    await reader.content(contentBytes(store, kind), async (block, at) => {
      front.add(block, at);
      const to = at + block.length;
      const writes: Promise<void>[] = [];
      for (const { offset, start, end } of isPlain ? stateSpans(store.layout, head, at, to) : []) {
        writes.push(store.states.writePart(checkpoint.slot, offset, block.subarray(start, end)));
      }
      for (const { pool, page, offset, start, end } of joined(pageSpans(store, checkpoint, beforePages, at, to))) {
        writes.push(pool.writePage(page, offset, block.subarray(start, end)));
      }
      await allSettled(writes);
    });
    return { checkpoint, tokens };
  } catch (error) {
    store.release(checkpoint);
    throw error;
  }
}

/** As Promise.all, but rejects only when nothing reads the block any more. */
async function allSettled(writes: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(writes)) if (result.status === 'rejected') throw result.reason;
}

/** The front as it arrives, in any order. Memory is taken as bytes arrive, whatever a header promises. */
class Front {
  private readonly pieces = new Map<number, Uint8Array>();
  private missing: number;

  constructor(
    readonly bytes: number,
    private readonly whole: (bytes: Uint8Array) => void,
  ) {
    this.missing = bytes;
  }

  add(block: Uint8Array, at: number): void {
    if (at >= this.bytes) return;
    const piece = block.slice(0, this.bytes - at);
    this.pieces.set(at, piece);
    this.missing -= piece.length;
    if (this.missing > 0) return;
    const inOrder = [...this.pieces].sort(([a], [b]) => a - b).map(([, one]) => one);
    this.whole(inOrder.length === 1 ? inOrder[0]! : bytesOf(Buffer.concat(inOrder)));
  }
}

/** Writes the logits, and a state that is not float32, to the device, and returns the tokens. */
function placeFront(
  store: SequenceStore,
  checkpoint: Checkpoint,
  { length, stateDtype, hasTokens }: ContentKind,
  front: Uint8Array,
): Int32Array | undefined {
  let at = 0;
  const next = (bytes: number): ArrayBuffer => {
    const start = front.byteOffset + at;
    at += bytes;
    return front.buffer.slice(start, start + bytes) as ArrayBuffer;
  };
  const tokens = hasTokens ? new Int32Array(next(length * 4)) : undefined;
  checkpoint.logits.write(new Float32Array(next(store.vocabularySize * 4)));
  if (stateDtype !== 'float32') store.states.write(checkpoint.slot, rowOf(store.layout, next, stateDtype));
  return tokens;
}

function rowOf(
  layout: { readonly parts: readonly StatePart[]; readonly elements: number },
  next: (bytes: number) => ArrayBuffer,
  stateDtype: StateDType,
): Float32Array {
  const row = new Float32Array(layout.elements);
  for (const { shape, offset } of layout.parts) {
    const stored = storedPart(shape, stateDtype);
    row.set(decodePart(partBytes(count(shape), stored).map(next), stored), offset);
  }
  return row;
}
