// Where a prompt is worth a state that is kept.

export interface Mark {
  /** Tokens from the start. */
  readonly at: number;
  /** Another text is likely to begin with these tokens, in another process too. */
  readonly isLasting: boolean;
}

/** A state is kept only where this many tokens would have to be read again without it. */
const leastGap = 64;
/** A question mostly stands behind its document: so many tokens before a long text's end, and four times as many ... */
const questionTokens = 256;

/**
 * Ascending, the last one at `length`: the ends of messages, every `every` tokens, and near the end more densely.
 * @param from tokens that are read already
 */
export function marksOf(prompt: { from: number; length: number; every: number; ends: readonly number[] }): Mark[] {
  const { from, length, every, ends } = prompt;
  const marks: Mark[] = [];
  const add = (at: number, isLasting: boolean) => {
    const isApart = marks.every((mark) => Math.abs(mark.at - at) >= leastGap);
    if (at >= from + leastGap && at < length && isApart) marks.push({ at, isLasting });
  };
  for (const end of ends) add(end, true);
  const isLong = length - from >= 4 * questionTokens;
  if (isLong) add(length - questionTokens, true);
  for (let at = (Math.floor(from / every) + 1) * every; at < length; at += every) add(at, false);
  for (let back = 4 * questionTokens; isLong && back < every; back *= 4) add(length - back, false);
  return [...marks.sort((a, b) => a.at - b.at), { at: length, isLasting: true }];
}
