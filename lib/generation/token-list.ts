// Token ids that grow: what a session has read and written so far.

export class TokenList {
  private data = new Int32Array(64);
  length = 0;

  push(tokens: ArrayLike<number>): void {
    const needed = this.length + tokens.length;
    if (needed > this.data.length) {
      const grown = new Int32Array(Math.max(needed, 2 * this.data.length));
      grown.set(this.data.subarray(0, this.length));
      this.data = grown;
    }
    this.data.set(tokens, this.length);
    this.length = needed;
  }

  truncate(length: number): void {
    this.length = Math.min(this.length, length);
  }

  /** A copy. */
  toArray(): Int32Array {
    return this.data.slice(0, this.length);
  }

  /** How many tokens from the start are the same. */
  commonPrefix(tokens: Int32Array): number {
    const most = Math.min(this.length, tokens.length);
    let same = 0;
    while (same < most && this.data[same] === tokens[same]) same++;
    return same;
  }
}

/** Both, one after the other. */
export function joined(first: Int32Array, second: Int32Array): Int32Array {
  const all = new Int32Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}
