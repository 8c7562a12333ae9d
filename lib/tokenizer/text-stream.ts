// Text out of token ids that come one by one: what is certain is given out, the bytes of an unfinished character wait.
import { linattnError, shown } from '../errors';
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
  /** The decoder may hold the start of a character. */
  #unfinished = false;
  #dropSpace: boolean;

  constructor(tokens: TokenText, { specialTokens = false, begins = false }: TextStreamOptions = {}) {
    this.#tokens = tokens;
    this.#keepSpecial = specialTokens;
    this.#dropSpace = begins && tokens.dropsFirstSpace;
  }

  /**
   * The text that is certain now; '' while a character is incomplete, for a special token or an unknown id.
   * @throws LinattnError ERR_ARGUMENT unless it is a whole number
   */
  push(id: number): string {
    if (!Number.isInteger(id)) {
      throw linattnError('ERR_ARGUMENT', `decode: tokens must be whole numbers, got ${shown(id)}`);
    }
    if (!this.#keepSpecial && this.#tokens.isSpecial(id)) return '';
    const whole = this.#tokens.text(id);
    if (whole !== undefined && !this.#unfinished) return this.#trim(whole);
    const bytes = this.#tokens.bytes(id);
    const text = this.#decoder.decode(bytes, { stream: true });
    // A character that begins, or a byte that stands alone, ends what the decoder held.
    if (bytes.length > 0) this.#unfinished = whole === undefined && bytes.at(-1)! >= 0x80;
    return this.#trim(text);
  }

  /** What was waiting. The stream may be used again for a new text. */
  flush(): string {
    this.#unfinished = false;
    return this.#trim(this.#decoder.decode());
  }

  #trim(text: string): string {
    if (!this.#dropSpace || text === '') return text;
    this.#dropSpace = false;
    return text.startsWith(' ') ? text.slice(1) : text;
  }
}
