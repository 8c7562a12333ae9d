// Where a prompt is worth a state that is kept.

/** A state is kept only where this many tokens would have to be read again without it. */
const leastGap = 64;
/** A question mostly stands behind its document: so many tokens before the end, and four times as many, and so on. */
const questionTokens = 512;

/**
 * Lengths, ascending, the last one `length`: the ends of messages, every `every` tokens, and near the end more densely.
 * @param from tokens that are read already
 */
export function marksOf(prompt: { from: number; length: number; every: number; ends: readonly number[] }): number[] {
  const { from, length, every, ends } = prompt;
  const marks: number[] = [];
  const add = (at: number) => {
    if (at >= from + leastGap && at < length && marks.every((mark) => Math.abs(mark - at) >= leastGap)) marks.push(at);
  };
  for (const end of ends) add(end);
  for (let at = (Math.floor(from / every) + 1) * every; at < length; at += every) add(at);
  for (let back = questionTokens; back < every; back *= 4) add(length - back);
  return [...marks.sort((a, b) => a - b), length];
}
