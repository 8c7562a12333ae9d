// Token ids that grow: what a session has read and written so far. The start may be known by its hash only.
import { createHash } from 'node:crypto';
import { commonLength } from '../cache/prefix-tree';

/** SHA-256 over runs of tokens: of each run, the hash of what was before it (32 bytes) and its ids as little-endian int32. */
export interface TokenHash {
  /** Where the runs end; the last is the count of tokens. */
  readonly ends: readonly number[];
  /** In hexadecimal digits. */
  readonly sha256: string;
}

const nothing = '0'.repeat(64);

function extended(sha256: string, run: Int32Array): string {
  const bytes = Buffer.from(run.buffer, run.byteOffset, run.byteLength);
  return createHash('sha256').update(Buffer.from(sha256, 'hex')).update(bytes).digest('hex');
}

const hashOf = (tokens: Int32Array, ends: readonly number[]): string =>
  ends.reduce((sha256, end, i) => extended(sha256, tokens.subarray(ends[i - 1] ?? 0, end)), nothing);

/** Stands in the place of a token that is known by its hash only. */
const unknown = -1;

export class TokenList {
  private data = new Int32Array(64);
  length = 0;
  private sealed: TokenHash | undefined;

  static of(tokens: ArrayLike<number>): TokenList {
    const list = new TokenList();
    list.push(tokens);
    return list;
  }

  /** Tokens of which only the hash is known. */
  static sealed(hash: TokenHash): TokenList {
    const list = TokenList.of(new Int32Array(hash.ends.at(-1)!).fill(unknown));
    list.sealed = hash;
    return list;
  }

  /** Tokens at the start that are known by their hash only. */
  get unknownStart(): number {
    return this.sealed?.ends.at(-1) ?? 0;
  }

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
    if (this.length < this.unknownStart) this.sealed = undefined;
  }

  copy(): TokenList {
    const list = TokenList.of(this.data.subarray(0, this.length));
    list.sealed = this.sealed;
    return list;
  }

  /** A copy; -1 stands for what is not known. */
  toArray(): Int32Array {
    return this.data.slice(0, this.length);
  }

  /** Those that are known. */
  known(): Int32Array {
    return this.data.slice(this.unknownStart, this.length);
  }

  hash(): TokenHash {
    const { sealed, length } = this;
    if (sealed === undefined) return { ends: [length], sha256: hashOf(this.toArray(), [length]) };
    if (length === this.unknownStart) return sealed;
    return { ends: [...sealed.ends, length], sha256: extended(sealed.sha256, this.known()) };
  }

  /** How many tokens from the start are the same. Tokens with the hash of an unknown start make it known. */
  commonPrefix(tokens: Int32Array): number {
    if (this.sealed !== undefined && tokens[0] !== unknown) {
      const start = this.unknownStart;
      if (tokens.length < start || hashOf(tokens, this.sealed.ends) !== this.sealed.sha256) return 0;
      this.data.set(tokens.subarray(0, start));
      this.sealed = undefined;
    }
    return commonLength(this.data.subarray(0, this.length), tokens);
  }
}

/** Both, one after the other. */
export function joined(first: Int32Array, second: Int32Array): Int32Array {
  const all = new Int32Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}
