// Text to ids, synchronously, whole or in pieces. The same class works on the main thread and in the worker.
import { type Definition, HuggingFaceTokenizer } from './huggingface';
import { LongWords } from './long-words';
import { type Splitting, splittingOf } from './splitting';
import type { Config } from './tokenizer-config';

// Words come again and again: 50,000 of them cost about 10 MB and make a long text about ten times faster.
const maxCachedWords = 50_000;
const maxCachedLength = 64;

export class Encoder {
  readonly tokenizer: HuggingFaceTokenizer;
  readonly #splitting: Splitting | undefined;
  readonly #added: ReadonlyMap<string, number>;
  readonly #addedPattern: RegExp | undefined;
  readonly #longestAdded: number;
  /** Made when there is one. */
  #longWords: { readonly encoder: LongWords | undefined } | undefined;
  readonly #idsOfWord = new Map<string, readonly number[]>();

  /** Throws what @huggingface/tokenizers throws on a definition that it does not take. */
  constructor(definition: Definition, config: Config) {
    this.tokenizer = new HuggingFaceTokenizer(definition, config);
    this.#splitting = splittingOf(definition, this.tokenizer);
    this.#added = new Map(definition.added_tokens.map((token) => [token.content, token.id]));
    const contents = [...this.#added.keys()].sort((a, b) => b.length - a.length); // the longest match wins
    this.#addedPattern = contents.length > 0 ? new RegExp(contents.map(escaped).join('|'), 'g') : undefined;
    this.#longestAdded = contents[0]?.length ?? 0;
  }

  /** False: the tokenizer is of a kind whose texts are encoded as a whole only. */
  get cuts(): boolean {
    return this.#splitting !== undefined;
  }

  /** True when text may be cut at p: the ids of both pieces, one after the other, are the ids of the whole. */
  mayCut(text: string, p: number): boolean {
    return (this.#splitting?.isBoundary(text, p) ?? false) && !this.#touchesAddedToken(text, p);
  }

  /** The ids of text alone: no BOS is added. `continued`: text is a piece that goes on where a cut was made. */
  encode(text: string, continued = false): Int32Array {
    if (!this.#splitting) return Int32Array.from(this.tokenizer.encode(text, { add_special_tokens: false }).ids);
    const ids: number[] = [];
    let from = 0;
    for (const match of this.#addedPattern ? text.matchAll(this.#addedPattern) : []) {
      this.#encodeSection(text.slice(from, match.index), from === 0, continued && from === 0, ids);
      ids.push(this.#added.get(match[0])!);
      from = match.index + match[0].length;
    }
    this.#encodeSection(text.slice(from), from === 0, continued && from === 0, ids);
    return Int32Array.from(ids);
  }

  /** The ids of the pieces of text that end at `ends`, joined, and how many each piece has. */
  encodePieces(text: string, ends: readonly number[], continued: boolean): { ids: Int32Array; counts: number[] } {
    const parts = ends.map((end, i) => this.encode(text.slice(ends[i - 1] ?? 0, end), continued || i > 0));
    return { ids: join(parts), counts: parts.map((part) => part.length) };
  }

  #encodeSection(section: string, first: boolean, continued: boolean, ids: number[]): void {
    if (section === '') return;
    for (const word of this.#splitting!.words(section, first, continued)) {
      for (const id of this.#idsOfWord.get(word) ?? this.#encodeWord(word)) ids.push(id);
    }
  }

  #encodeWord(word: string): readonly number[] {
    const symbols = this.#splitting!.symbols(word);
    const ids = (word.length > maxCachedLength && this.#encodeLong(symbols)) || this.#encodeTokens(symbols);
    if (word.length <= maxCachedLength) {
      if (this.#idsOfWord.size >= maxCachedWords) this.#idsOfWord.clear();
      // A copy: a match of 13 characters or more is a view that would keep the whole text alive.
      this.#idsOfWord.set(Buffer.from(word, 'utf16le').toString('utf16le'), ids);
    }
    return ids;
  }

  #encodeTokens(symbols: string): readonly number[] {
    return this.tokenizer.model.encode([symbols]).map((token) => this.tokenizer.token_to_id(token)!);
  }

  /** Undefined for what only @huggingface/tokenizers encodes; it may take a word that is a token as that. */
  #encodeLong(symbols: string): readonly number[] | undefined {
    this.#longWords ??= { encoder: LongWords.of(this.tokenizer) };
    return this.tokenizer.token_to_id(symbols) === undefined ? this.#longWords.encoder?.encode(symbols) : undefined;
  }

  /** True when an added token spans p or ends there: text that follows one may be treated as a beginning. */
  #touchesAddedToken(text: string, p: number): boolean {
    if (!this.#addedPattern) return false;
    const start = Math.max(0, p - this.#longestAdded);
    const window = text.slice(start, p + this.#longestAdded - 1);
    if (window.search(this.#addedPattern) < 0) return false;
    for (const content of this.#added.keys()) {
      for (let at = window.indexOf(content); at >= 0; at = window.indexOf(content, at + 1)) {
        if (start + at < p && p <= start + at + content.length) return true;
      }
    }
    return false;
  }
}

const escaped = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');

/** The arrays one after the other. */
export function join(parts: readonly Int32Array[]): Int32Array {
  const all = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

// Small enough that re-encoding one piece takes milliseconds, large enough that a piece costs no more than its text.
const pieceLength = 2048;

/** Where the pieces of text from `start` on end: about every 2,048 characters, at a place where text may be cut. */
export function* pieceEnds(
  text: string,
  start: number,
  mayCut: (text: string, p: number) => boolean,
): Generator<number> {
  for (let from = start; from < text.length; ) {
    from = pieceEnd(text, from, mayCut);
    yield from;
  }
}

function pieceEnd(text: string, from: number, mayCut: (text: string, p: number) => boolean): number {
  const target = from + pieceLength;
  if (target >= text.length) return text.length;
  for (let p = target; p > from; p--) if (mayCut(text, p)) return p;
  for (let p = target + 1; p < text.length; p++) if (mayCut(text, p)) return p;
  return text.length;
}
