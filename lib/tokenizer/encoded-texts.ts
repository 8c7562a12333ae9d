// The texts encoded last, with their ids piece by piece: a text that begins like one of them is encoded only from the
// last cut inside the common beginning.

interface EncodedText {
  readonly text: string;
  /** Where the pieces end, in text and in ids. */
  readonly ends: readonly number[];
  readonly idEnds: readonly number[];
  readonly ids: Int32Array;
}
/** The pieces at the beginning of a text that are known. */
export interface KnownStart {
  readonly length: number;
  readonly ends: readonly number[];
  readonly idEnds: readonly number[];
  readonly ids: Int32Array;
}

const maxTexts = 4;
const maxCharacters = 16 * 2 ** 20; // of all texts; with their ids about 64 MiB at most

export class EncodedTexts {
  /** The newest last. */
  #texts: EncodedText[] = [];

  /** The longest known start of text that ends with text itself or where it may be cut. */
  knownStart(text: string, mayCut: (text: string, p: number) => boolean): KnownStart {
    let best: KnownStart = { length: 0, ends: [], idEnds: [], ids: new Int32Array(0) };
    for (const known of this.#texts) {
      let pieces = equalPieces(known, text);
      const isUsable = (end: number) => end === text.length || mayCut(text, end);
      while (pieces > 0 && !isUsable(known.ends[pieces - 1]!)) pieces--;
      const length = known.ends[pieces - 1] ?? 0;
      if (length <= best.length) continue;
      best = {
        length,
        ends: known.ends.slice(0, pieces),
        idEnds: known.idEnds.slice(0, pieces),
        ids: known.ids.subarray(0, known.idEnds[pieces - 1]),
      };
    }
    return best;
  }

  /** Keeps a text, in place of those that it begins with. */
  add(encoded: EncodedText): void {
    const { text } = encoded;
    const others = this.#texts.filter((known) => known.text.length > text.length || !text.startsWith(known.text));
    if (text.length > maxCharacters) return;
    this.#texts = [...others, encoded].slice(-maxTexts);
    while (this.#texts.reduce((sum, known) => sum + known.text.length, 0) > maxCharacters) this.#texts.shift();
  }

  clear(): void {
    this.#texts = [];
  }
}

/** How many of the known pieces text begins with. Slices are compared natively, never character by character here. */
function equalPieces(known: EncodedText, text: string): number {
  let from = 0;
  for (const [piece, end] of known.ends.entries()) {
    if (end > text.length || known.text.slice(from, end) !== text.slice(from, end)) return piece;
    from = end;
  }
  return known.ends.length;
}
