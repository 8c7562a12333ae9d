// Byte pair encoding of long words, with the ids of @huggingface/tokenizers, which takes seconds for a word (a run of
// spaces, text without spaces) of 100,000 characters. Merges of the lowest rank come first, of equal ones the leftmost.
import type { HuggingFaceTokenizer } from './huggingface';
import { NumberHeap } from './number-heap';

const none = -1;
/** In the heap a merge is its rank times this, plus where its left part begins. */
const positions = 2 ** 32;

export class LongWords {
  readonly #tokenizer: HuggingFaceTokenizer;
  /** Of a character that is no token. No merge has it. */
  readonly #unknown: number;
  readonly #rankOfPair = new Map<number, number>();
  /** The id that a merge makes, by rank. */
  readonly #made: Int32Array;

  private constructor(tokenizer: HuggingFaceTokenizer, merges: readonly (readonly [number, number, number])[]) {
    this.#tokenizer = tokenizer;
    this.#unknown = 1 + merges.reduce((largest, merge) => Math.max(largest, ...merge), 0);
    this.#made = Int32Array.from(merges, ([, , made]) => made);
    for (const [rank, [left, right]] of merges.entries()) this.#rankOfPair.set(this.#pair(left, right), rank);
  }

  /** Undefined where a merge has or makes what is no token, or shares its id with another. */
  static of(tokenizer: HuggingFaceTokenizer): LongWords | undefined {
    const merges: [number, number, number][] = [];
    for (const [left, right] of tokenizer.model.merges) {
      const tokens = [left, right, left + right];
      const ids = tokens.map((token) => tokenizer.token_to_id(token));
      if (ids.some((id, i) => id === undefined || tokenizer.id_to_token(id) !== tokens[i])) return undefined;
      merges.push(ids as [number, number, number]);
    }
    return new LongWords(tokenizer, merges);
  }

  #pair(left: number, right: number): number {
    return left * (this.#unknown + 1) + right;
  }

  /** The ids of a word, given as the characters of the vocabulary, that is no token itself. */
  encode(word: string): number[] {
    const symbols = Array.from(word);
    const end = symbols.length;
    const ids = Int32Array.from(symbols, (symbol) => this.#idOf(symbol));
    const next = Int32Array.from(symbols, (_, i) => i + 1);
    const previous = Int32Array.from(symbols, (_, i) => i - 1);
    const rankAt = new Int32Array(end);
    const heap = new NumberHeap();
    const rate = (at: number) => {
      const right = next[at]!;
      const rank = right < end ? (this.#rankOfPair.get(this.#pair(ids[at]!, ids[right]!)) ?? none) : none;
      rankAt[at] = rank;
      if (rank !== none) heap.push(rank * positions + at);
    };
    for (let at = 0; at < end; at++) rate(at);
    for (let least = heap.pop(); least !== undefined; least = heap.pop()) {
      const rank = Math.floor(least / positions);
      const at = least - rank * positions;
      if (rankAt[at] !== rank) continue; // one of its parts went into another merge
      const right = next[at]!;
      ids[at] = this.#made[rank]!;
      rankAt[right] = none;
      next[at] = next[right]!;
      if (next[at]! < end) previous[next[at]!] = at;
      rate(at);
      if (at > 0) rate(previous[at]!);
    }
    const all: number[] = [];
    for (let at = 0; at < end; at = next[at]!) {
      if (ids[at] !== this.#unknown) all.push(ids[at]!);
      else
        for (const token of this.#tokenizer.model.encode([symbols[at]!])) all.push(this.#tokenizer.token_to_id(token)!);
    }
    return all;
  }

  #idOf(symbol: string): number {
    const id = this.#tokenizer.token_to_id(symbol);
    const isKnown = id !== undefined && id < this.#unknown && this.#tokenizer.id_to_token(id) === symbol;
    return isKnown ? id : this.#unknown;
  }
}
