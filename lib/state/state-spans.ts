// Where the parts of a float32 state lie in its file, back to back, and in its row on the device.
import type { StatePart } from '../layers/layer';

export interface StateSpan {
  /** In the row, in bytes. */
  readonly offset: number;
  /** In the stretch of the file. */
  readonly start: number;
  readonly end: number;
}

/** What the bytes [from, to) hold of the parts of a state that begins at `base`; those side by side in the row as one. */
export function stateSpans(
  { parts }: { readonly parts: readonly StatePart[] },
  base: number,
  from: number,
  to: number,
): StateSpan[] {
  const spans: StateSpan[] = [];
  let begin = base;
  for (const { shape, offset } of parts) {
    const bytes = shape.reduce((product, size) => product * size, 4);
    const [start, end] = [Math.max(from, begin), Math.min(to, begin + bytes)];
    const span = { offset: offset * 4 + start - begin, start: start - from, end: end - from };
    begin += bytes;
    if (start >= end) continue;
    const last = spans.at(-1);
    const isNext = last !== undefined && last.offset + last.end - last.start === span.offset;
    if (isNext) spans[spans.length - 1] = { ...last, end: span.end };
    else spans.push(span);
  }
  return spans;
}
