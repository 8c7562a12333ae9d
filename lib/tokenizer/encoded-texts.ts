// The texts encoded last, with their ids piece by piece: a text that begins like one of them is encoded only from the
// last cut inside the common beginning.

interface EncodedText {
  readonly text: string;
  /** Where the pieces end, in text and in ids. */
  readonly ends: readonly number[];
  readonly idEnds: readonly number[];
  /** The ids, in parts that texts with a common beginning share. */
  readonly ids: readonly Int32Array[];
}
/** The pieces at the beginning of a text that are known. */
export interface KnownStart {
  readonly length: number;
  readonly ends: readonly number[];
  readonly idEnds: readonly number[];
  readonly ids: readonly Int32Array[];
}

const maxTexts = 4;
const maxCharacters = 16 * 2 ** 20; // of all texts; with their ids about 64 MiB at most

export class EncodedTexts {
  /** The newest last. */
  #texts: EncodedText[] = [];

  /** The longest known start of text that ends with text itself or where it may be cut. */
  knownStart(text: string, mayCut: (text: string, p: number) => boolean): KnownStart {
    let best: KnownStart = { length: 0, ends: [], idEnds: [], ids: [] };
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
        ids: firstIds(known.ids, known.idEnds[pieces - 1]!),
      };
    }
    return best;
  }

  /** Keeps a text, in place of those that it begins with. */
  add(encoded: EncodedText): void {
    const { text } = encoded;
    const others = this.#texts.filter((known) => !beginsWith(text, known.text));
    if (text.length > maxCharacters) return;
    this.#texts = [...others, encoded].slice(-maxTexts);
    while (this.#texts.reduce((sum, known) => sum + known.text.length, 0) > maxCharacters) this.#texts.shift();
  }

  clear(): void {
    this.#texts = [];
  }
}

/** How many of the known pieces text begins with. */
function equalPieces(known: EncodedText, text: string): number {
  if (beginsWith(text, known.text)) return known.ends.length;
  let equal = 0;
  let different = known.ends.length;
  while (equal < different) {
    const middle = Math.floor((equal + different) / 2);
    const from = known.ends[equal - 1] ?? 0;
    const to = known.ends[middle]!;
    if (to <= text.length && known.text.slice(from, to) === text.slice(from, to)) equal = middle + 1;
    else different = middle;
  }
  return equal;
}

function firstIds(parts: readonly Int32Array[], count: number): Int32Array[] {
  const first: Int32Array[] = [];
  for (let left = count, i = 0; left > 0; i++) {
    const part = parts[i]!.subarray(0, left);
    first.push(part);
    left -= part.length;
  }
  return first;
}

// Slices are compared natively: on 2 MB thirty times as fast as startsWith.
const beginsWith = (text: string, start: string): boolean => text.slice(0, start.length) === start;
