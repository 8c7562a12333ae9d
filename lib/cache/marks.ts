// Where a prompt is worth a state that is kept.
import type { DeviceName } from '../tensor/device';

export interface Mark {
  /** Tokens from the start. */
  readonly at: number;
  /** Another text is likely to begin with these tokens, in another process too. */
  readonly isLasting: boolean;
}

/** A state is kept only where this many tokens would have to be read again without it. */
const leastGap = 64;
/** Behind a long text a GPU reads this share of it in one step, which costs as much for fewer tokens: a stop adds one. */
const leastShare = 1 / 256;
/** A question mostly stands behind its document: so many tokens before a long text's end, and four times as many ... */
const questionTokens = 256;

/** How many tokens beyond `from` are worth a state. */
const leastBeyond = (from: number, device: DeviceName): number =>
  device === 'cpu' ? leastGap : Math.max(leastGap, from * leastShare);

/**
 * Ascending, the last one at `length`: the ends of messages, every `every` tokens, and near the end more densely.
 * @param from tokens that are read already
 */
export function marksOf(prompt: {
  from: number;
  length: number;
  every: number;
  ends: readonly number[];
  device: DeviceName;
}): Mark[] {
  const { from, length, every, ends, device } = prompt;
  const first = from + leastBeyond(from, device);
  const marks: Mark[] = [];
  const add = (at: number, isLasting: boolean) => {
    const isApart = marks.every((mark) => Math.abs(mark.at - at) >= leastGap);
    if (at >= first && at < length && isApart) marks.push({ at, isLasting });
  };
  for (const end of ends) add(end, true);
  const isLong = length - from >= 4 * questionTokens;
  if (isLong) add(length - questionTokens, true);
  for (let at = (Math.floor(from / every) + 1) * every; at < length; at += every) add(at, false);
  for (let back = 4 * questionTokens; isLong && back < every; back *= 4) add(length - back, false);
  return [...marks.sort((a, b) => a.at - b.at), { at: length, isLasting: true }];
}
