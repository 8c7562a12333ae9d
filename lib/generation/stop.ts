// Finds stop strings in text that comes in pieces, and holds back what could still become one.
import { linattnError } from '../errors';

/**
 * Feeds on text and gives out the part that is certain to stand before any stop string. The first stop string to be
 * complete ends the text where it began (of two complete at once, where the longer began), however the text was cut.
 */
export class StopMatcher {
  readonly #stops: readonly string[];
  #held = '';
  #matched: string | undefined;

  /** Throws ERR_ARGUMENT unless `stop` is a non-empty string or an array of those. */
  constructor(stop: string | readonly string[] = []) {
    const stops = typeof stop === 'string' ? [stop] : stop;
    for (const text of Array.isArray(stops) ? stops : [stops]) {
      if (typeof text !== 'string' || text === '') {
        throw linattnError(
          'ERR_ARGUMENT',
          `generate: stop must be non-empty strings, got ${text === '' ? 'an empty one' : typeof text}`,
        );
      }
    }
    this.#stops = [...stops];
  }

  /** The stop string that ended the text. */
  get matched(): string | undefined {
    return this.#matched;
  }

  /** The text that can be shown now. After a match nothing comes any more. */
  push(text: string): string {
    if (this.#matched !== undefined) return '';
    if (this.#stops.length === 0) return text;
    const seen = this.#held + text;
    const match = this.#firstMatch(seen);
    if (match) {
      this.#held = '';
      this.#matched = match.stop;
      return seen.slice(0, match.start);
    }
    const certain = seen.length - this.#longestPrefixAtEnd(seen);
    this.#held = seen.slice(certain);
    return seen.slice(0, certain);
  }

  /** What was held back, when the text ends without a match. */
  flush(): string {
    const text = this.#held;
    this.#held = '';
    return text;
  }

  #firstMatch(text: string): { stop: string; start: number } | undefined {
    let first: { stop: string; start: number; end: number } | undefined;
    for (const stop of this.#stops) {
      const start = text.indexOf(stop);
      const end = start + stop.length;
      if (start < 0) continue;
      if (!first || end < first.end || (end === first.end && start < first.start)) first = { stop, start, end };
    }
    return first;
  }

  /** The length of the longest end of text that some stop string begins with. */
  #longestPrefixAtEnd(text: string): number {
    let longest = 0;
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
        if (text.endsWith(stop.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}
