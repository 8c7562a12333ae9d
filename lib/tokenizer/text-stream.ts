// Text out of token ids that come one by one: what is certain is given out, the bytes of an unfinished character wait.
import type { TokenText } from './token-text';

export interface TextStreamOptions {
  /** Give out special tokens as they are written instead of leaving them out. Default false. */
  readonly specialTokens?: boolean;
  /** The ids begin a text: a tokenizer that puts a space before each text takes it away again. Default false. */
  readonly begins?: boolean;
}

/** All texts joined, flush included, are the decoded ids; malformed UTF-8 becomes U+FFFD. A push costs O(1). */
export class TextStream {
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  readonly #tokens: TokenText;
  readonly #keepSpecial: boolean;
  #dropSpace: boolean;

  constructor(tokens: TokenText, { specialTokens = false, begins = false }: TextStreamOptions = {}) {
    this.#tokens = tokens;
    this.#keepSpecial = specialTokens;
    this.#dropSpace = begins && tokens.dropsFirstSpace;
  }

  /** The text that is certain now; '' while a character is incomplete, for a special token or an unknown id. */
  push(id: number): string {
    if (!this.#keepSpecial && this.#tokens.isSpecial(id)) return '';
    return this.#trim(this.#decoder.decode(this.#tokens.bytes(id), { stream: true }));
  }

  /** What was waiting. The stream may be used again for a new text. */
  flush(): string {
    return this.#trim(this.#decoder.decode());
  }

  #trim(text: string): string {
    if (!this.#dropSpace || text === '') return text;
    this.#dropSpace = false;
    return text.startsWith(' ') ? text.slice(1) : text;
  }
}
