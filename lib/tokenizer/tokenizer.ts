// The tokenizer of a model: text to ids (long text in a worker, known beginnings not again), ids to text, chat template.
import { checkOptions, linattnError } from '../errors';
import { ChatTemplate, type Message } from './chat-template';
import { EncodedTexts, type KnownStart } from './encoded-texts';
import { Encoder, join, pieceEnds } from './encoder';
import { type EncodedPieces, EncoderThread } from './encoder-thread';
import { TextStream, type TextStreamOptions } from './text-stream';
import { TokenText } from './token-text';
import { specialTokens } from './tokenizer-config';
import { readTokenizerFiles, type TokenizerFiles } from './tokenizer-files';

export type { Message } from './chat-template';
export type { TextStream, TextStreamOptions } from './text-stream';

export interface Progress {
  readonly done: number;
  readonly total: number;
}
export interface EncodeOptions {
  signal?: AbortSignal;
  /** In characters (UTF-16 units) of the text. */
  onProgress?: (progress: Progress) => void;
}
export interface Tokenizer {
  /** The ids that go before a raw prompt: the BOS of tokenizers that put one there, mostly none. */
  readonly prefix: Int32Array;
  /** Whether the model has a chat template. */
  readonly hasChatTemplate: boolean;
  encode(text: string, options?: EncodeOptions): Promise<Int32Array>;
  decode(tokens: ArrayLike<number>): string;
  applyChatTemplate(messages: readonly Message[], variables?: Record<string, unknown>): string;
}

// Up to this many characters are encoded on the calling thread: some milliseconds.
const inlineLength = 8192;

/** Opens the tokenizer of a model folder. Throws ERR_TOKENIZER with the file and what was expected of it. */
export async function loadTokenizer(folder: string, options: { signal?: AbortSignal } = {}): Promise<TextTokenizer> {
  return new TextTokenizer(await readTokenizerFiles(folder, options.signal));
}

export class TextTokenizer implements Tokenizer {
  readonly prefix: Int32Array;
  /** One more than the largest id. */
  readonly size: number;
  /** The id of eos_token in tokenizer_config.json. */
  readonly eosToken: number | undefined;
  readonly #encoder: Encoder;
  readonly #thread: EncoderThread;
  readonly #texts = new EncodedTexts();
  readonly #tokenText: TokenText;
  readonly #chatTemplate: ChatTemplate;
  readonly #mayCut = (text: string, p: number) => this.#encoder.mayCut(text, p);
  #isDisposed = false;

  constructor({ definition, definitionBytes, config, chatTemplate }: TokenizerFiles) {
    try {
      this.#encoder = new Encoder(definition, config);
    } catch (error) {
      throw linattnError('ERR_TOKENIZER', `load: tokenizer.json is not supported: ${(error as Error).message}`, {
        cause: error,
      });
    }
    const { tokenizer } = this.#encoder;
    this.#thread = new EncoderThread({ definition: definitionBytes, config });
    this.#tokenText = new TokenText(definition, config, tokenizer);
    this.#chatTemplate = new ChatTemplate(chatTemplate, config);
    const { bos_token, eos_token } = specialTokens(config);
    this.eosToken = eos_token === undefined ? undefined : tokenizer.token_to_id(eos_token);
    const bos = bos_token === undefined ? undefined : tokenizer.token_to_id(bos_token);
    this.prefix = promptPrefix(this.#encoder, bos, config.add_bos_token);
    const ids = [...Object.values(definition.model.vocab), ...definition.added_tokens.map((token) => token.id)];
    this.size = 1 + ids.reduce((largest, id) => Math.max(largest, id), -1);
  }

  get hasChatTemplate(): boolean {
    return this.#chatTemplate.exists;
  }

  /**
   * The ids of text, [count] int32. Special tokens written in the text become their ids; none is added (Hugging Face:
   * add_special_tokens=False; `prefix` is what Hugging Face puts before a raw prompt). Text beyond 8,192 characters is
   * encoded in a worker; what an earlier text began with is not encoded again. Rejects with signal.reason when aborted.
   */
  async encode(text: string, options: EncodeOptions = {}): Promise<Int32Array> {
    checkOptions('encode', options, 'onProgress');
    const { signal, onProgress } = options;
    if (typeof text !== 'string') {
      throw linattnError('ERR_ARGUMENT', `encode: text must be a string, got ${text === null ? 'null' : typeof text}`);
    }
    if (this.#isDisposed) throw linattnError('ERR_DISPOSED', 'encode: the tokenizer was disposed');
    signal?.throwIfAborted();
    const total = text.length;
    const report = (done: number) => onProgress?.({ done, total });
    const known = this.#texts.knownStart(text, this.#mayCut);
    const start = known.length;
    const ends = this.#encoder.cuts ? pieceEnds(text, start, this.#mayCut) : [total].values();
    if (start > 0) report(start);
    if (total - start <= inlineLength) {
      const allEnds = start < total ? [...ends] : [];
      const relative = allEnds.map((end) => end - start);
      const rest = this.#encoder.encodePieces(text.slice(start), relative, start > 0);
      if (start < total || total === 0) report(total);
      return this.#keep(text, known, { ...rest, ends: allEnds });
    }
    return this.#keep(text, known, await this.#thread.encode(text, start, ends, { signal, onProgress: report }));
  }

  #keep(text: string, known: KnownStart, rest: EncodedPieces): Int32Array {
    const ids = [...known.ids, rest.ids];
    if (text.length > inlineLength && !this.#isDisposed) {
      const idEnds = [...known.idEnds];
      for (const count of rest.counts) idEnds.push((idEnds.at(-1) ?? 0) + count);
      this.#texts.add({ text, ends: [...known.ends, ...rest.ends], idEnds, ids });
    }
    return join(ids);
  }

  /** The text of ids; special tokens are left out (Hugging Face: skip_special_tokens=True, without clean-up of spaces). */
  decode(tokens: ArrayLike<number>, options: Pick<TextStreamOptions, 'specialTokens'> = {}): string {
    if (typeof tokens !== 'object' || tokens === null || !(tokens.length >= 0 && tokens.length < 2 ** 32)) {
      throw linattnError('ERR_ARGUMENT', 'decode: tokens must be a list of token ids');
    }
    const stream = this.textStream({ ...options, begins: true });
    const texts: string[] = [];
    for (let i = 0; i < tokens.length; i++) texts.push(stream.push(tokens[i]!));
    return texts.join('') + stream.flush();
  }

  /** Decodes ids that come one by one. */
  textStream(options: TextStreamOptions = {}): TextStream {
    checkOptions('textStream', options);
    return new TextStream(this.#tokenText, options);
  }

  /**
   * The text of a conversation in the model's own form, ready for `encode`. The template also sees `variables` (tools,
   * enable_thinking ...); add_generation_prompt is true unless given. Throws ERR_TOKENIZER when the model has no
   * template or the template refuses the messages.
   */
  applyChatTemplate(messages: readonly Message[], variables: Record<string, unknown> = {}): string {
    checkOptions('applyChatTemplate', variables);
    return this.#chatTemplate.render(messages, variables);
  }

  /** Ends the worker; what it is encoding rejects with ERR_DISPOSED. */
  dispose(): void {
    this.#isDisposed = true;
    this.#texts.clear();
    this.#thread.dispose();
  }
}

/** What the post-processor puts before a text, or what add_bos_token asks for where tokenizer_config.json has it. */
function promptPrefix({ tokenizer }: Encoder, bos: number | undefined, addBos: boolean | undefined): Int32Array {
  const bare = tokenizer.encode('a', { add_special_tokens: false }).ids;
  const full = tokenizer.encode('a', { add_special_tokens: true }).ids;
  const start = full.findIndex((_, i) => bare.every((id, j) => full[i + j] === id));
  const prefix = start > 0 ? full.slice(0, start) : [];
  if (addBos === undefined || bos === undefined) return Int32Array.from(prefix);
  const rest = prefix.filter((id) => id !== bos);
  return Int32Array.from(addBos ? [bos, ...rest] : rest);
}
