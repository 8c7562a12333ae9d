// Where the bytes of a saved state lie on the device: the parts of a float32 state, and the pages behind them.
import { pageTokens, type StatePart } from '../layers/layer';
import type { PagePool } from './page-pool';
import type { Checkpoint, SequenceStore } from './sequence-store';

export const visiblePages = (pool: PagePool, length: number): number => {
  const { first, end } = pool.visible(length);
  return end - first;
};

/** Part of a page that lies in a stretch of the content. */
export interface PageSpan {
  readonly pool: PagePool;
  /** The physical page, and where in it the part begins, in bytes. */
  readonly page: number;
  readonly offset: number;
  /** In the stretch. */
  readonly start: number;
  readonly end: number;
  /** Tokens that the page holds. */
  readonly tokens: number;
}

/** What the bytes [from, to) of the content hold of pages. */
export function* pageSpans(
  store: SequenceStore,
  { length, pages }: Pick<Checkpoint, 'length' | 'pages'>,
  front: number,
  from: number,
  to: number,
): Generator<PageSpan> {
  let base = front;
  for (const [group, pool] of store.pagePools.entries()) {
    const { pageBytes } = pool;
    const { first } = pool.visible(length);
    const last = Math.min(visiblePages(pool, length), Math.ceil((to - base) / pageBytes));
    for (let i = Math.max(0, Math.floor((from - base) / pageBytes)); i < last; i++) {
      const begin = base + i * pageBytes;
      const start = Math.max(from, begin);
      const end = Math.min(to, begin + pageBytes);
      const page = pool.pageOf(pages[group]!, first + i);
      const tokens = length - (first + i) * pageTokens;
      yield { pool, page, offset: start - begin, start: start - from, end: end - from, tokens };
    }
    base += visiblePages(pool, length) * pageBytes;
  }
}

/** Spans that follow each other in the pool too, as one. */
export function* joined(parts: Iterable<PageSpan>): Generator<Omit<PageSpan, 'tokens'>> {
  let last: Omit<PageSpan, 'tokens'> | undefined;
  for (const span of parts) {
    const { pool, page, offset, start, end } = span;
    const place = last && last.page * pool.pageBytes + last.offset + last.end - last.start;
    if (last?.pool === pool && last.end === start && place === page * pool.pageBytes + offset) {
      last = { ...last, end };
    } else {
      if (last !== undefined) yield last;
      last = span;
    }
  }
  if (last !== undefined) yield last;
}

/** What the bytes [from, to) of the content hold of the parts of a float32 state that begins at `base`. */
export function* stateSpans(
  layout: { readonly parts: readonly StatePart[] },
  base: number,
  from: number,
  to: number,
): Generator<{ readonly offset: number; readonly start: number; readonly end: number }> {
  let begin = base;
  for (const { shape, offset } of layout.parts) {
    const bytes = shape.reduce((product, size) => product * size, 4);
    const [start, end] = [Math.max(from, begin), Math.min(to, begin + bytes)];
    if (start < end) yield { offset: offset * 4 + start - begin, start: start - from, end: end - from };
    begin += bytes;
  }
}
