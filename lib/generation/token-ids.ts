// What a token id is.

/** How many from the start are token ids: whole numbers of 0 or more and below `vocabularySize`. */
export function leadingTokenIds(ids: ArrayLike<unknown>, vocabularySize: number): number {
  let count = 0;
  while (count < ids.length && isTokenId(ids[count], vocabularySize)) count++;
  return count;
}

const isTokenId = (id: unknown, vocabularySize: number): boolean =>
  Number.isInteger(id) && (id as number) >= 0 && (id as number) < vocabularySize;
