// What a checkpoint holds, as the sections of a saved state: the logits of the next token, each part of the state by its
// name, and for each group of softmax layers the pages that are still visible, from the oldest to the newest.
import { type KvGroup, pageTokens, type StatePart } from '../layers/layer';
import { type DType, type DTypes, dtypeBytes, newArray } from '../tensor/dtype';
import { Tensor } from '../tensor/tensor';
import type { PagePool } from './page-pool';
import type { Checkpoint, SequenceStore } from './sequence-store';
import { bytesOf, type FramedReader } from './snapshot-format';
import { decodePart, encodePart, partBytes, type StateDType, storedPart } from './state-dtype';

export interface Section {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
}

const count = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/** The sections of a state of `length` tokens, in their order. */
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

/** The bytes of those sections. The checkpoint must be held until the end. */
export async function* contentOf(
  store: SequenceStore,
  checkpoint: Checkpoint,
  stateDtype: StateDType,
): AsyncGenerator<Uint8Array> {
  yield bytesOf(await checkpoint.logits.read());
  const row = await store.states.read(checkpoint.slot);
  for (const { shape, offset } of store.layout.parts) {
    const values = row.subarray(offset, offset + count(shape));
    for (const array of encodePart(values, storedPart(shape, stateDtype))) yield bytesOf(array);
  }
  for (const [i, pool] of store.pagePools.entries()) {
    const { first, end } = pool.visible(checkpoint.length);
    for (let logical = first; logical < end; logical++) {
      const content = await pool.readPage(pool.pageOf(checkpoint.pages[i]!, logical));
      clearBeyond(pool.group, content, checkpoint.length - logical * pageTokens);
      yield bytesOf(content);
    }
  }
}

/** What lies behind the tokens of a page is of steps that did not count, or of sequences before: nobody else's business. */
function clearBeyond(group: KvGroup, content: DTypes[DType], tokens: number): void {
  if (tokens >= pageTokens) return;
  for (const { offset, heads, width } of group.parts) {
    for (const start of [offset, offset + pageTokens * heads * width]) {
      (content as Float32Array).fill(0, start + tokens * heads * width, start + pageTokens * heads * width);
    }
  }
}

/** A new checkpoint with the sections that come next in `reader`; the caller releases it when they prove false. */
export async function readContent(
  store: SequenceStore,
  reader: FramedReader,
  length: number,
  stateDtype: StateDType,
): Promise<Checkpoint> {
  const vocabulary = store.vocabularySize;
  const values = new Float32Array(await reader.section(vocabulary * 4));
  const logits = Tensor.from(values, { dtype: 'float32', shape: [1, vocabulary], device: store.device });
  let checkpoint: Checkpoint;
  try {
    checkpoint = store.emptyCheckpoint(length, logits);
  } catch (error) {
    logits.dispose();
    throw error;
  }
  try {
    store.states.write(checkpoint.slot, await readRow(store.layout, reader, stateDtype));
    for (const [i, pool] of store.pagePools.entries()) await readPages(pool, checkpoint, i, reader);
    return checkpoint;
  } catch (error) {
    store.release(checkpoint);
    throw error;
  }
}

async function readRow(
  layout: { readonly parts: readonly StatePart[]; readonly elements: number },
  reader: FramedReader,
  stateDtype: StateDType,
): Promise<Float32Array> {
  const row = new Float32Array(layout.elements);
  for (const { shape, offset } of layout.parts) {
    const stored = storedPart(shape, stateDtype);
    const arrays: ArrayBuffer[] = [];
    for (const bytes of partBytes(count(shape), stored)) arrays.push(await reader.section(bytes));
    row.set(decodePart(arrays, stored), offset);
  }
  return row;
}

async function readPages(pool: PagePool, checkpoint: Checkpoint, group: number, reader: FramedReader): Promise<void> {
  const { first, end } = pool.visible(checkpoint.length);
  const elements = pool.group.pageElements;
  for (let logical = first; logical < end; logical++) {
    const content = newArray(pool.dtype, elements);
    bytesOf(content).set(new Uint8Array(await reader.section(elements * dtypeBytes(pool.dtype))));
    pool.writePage(pool.pageOf(checkpoint.pages[group]!, logical), content);
  }
}
