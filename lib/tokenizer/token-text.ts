// What each token id stands for: its bytes, and whether it is a special token, which decoded text leaves out.
import { isUtf8 } from 'node:buffer';
import { linattnError } from '../errors';
import { fromByteChars } from './byte-alphabet';
import type { AddedToken, Definition, HuggingFaceTokenizer, Stage } from './huggingface';
import { type Config, specialTokens, tokenContent } from './tokenizer-config';

const nothing = new Uint8Array(0);
const utf8 = new TextEncoder();

export class TokenText {
  /** True where the decoder drops one space at the start of a text (tokenizers that write a space as U+2581). */
  readonly dropsFirstSpace: boolean;
  readonly #tokenizer: HuggingFaceTokenizer;
  readonly #bytesOfToken: (token: string) => Uint8Array;
  readonly #added: ReadonlyMap<number, string>;
  readonly #special: ReadonlySet<number>;
  /** Of the ids asked for so far. */
  readonly #texts = new Map<number, string | undefined>();

  /** Throws ERR_TOKENIZER when the decoder is none of those known here. */
  constructor(definition: Definition, config: Config, tokenizer: HuggingFaceTokenizer) {
    const stages = flatten(definition.decoder);
    const isByteLevel = stages.length === 1 && stages[0]!.type === 'ByteLevel';
    if (!isByteLevel && !(stages.length > 0 && stages.every(isSpaceStage))) {
      const types = stages.map((stage) => stage.type).join(', ');
      throw linattnError(
        'ERR_TOKENIZER',
        `load: tokenizer.json must have a decoder ByteLevel, Metaspace or a Sequence of Replace(U+2581 by space), ` +
          `ByteFallback, Fuse, Strip(first space), got ${types || 'none'}`,
      );
    }
    this.#tokenizer = tokenizer;
    this.#added = new Map(definition.added_tokens.map((token) => [token.id, token.content]));
    this.#special = new Set(specialIds(definition.added_tokens, config, tokenizer));
    this.#bytesOfToken = isByteLevel ? (token) => fromByteChars(token) ?? utf8.encode(token) : spaceTokenBytes;
    this.dropsFirstSpace = stages.some((stage) => stage.type === 'Strip' || stage.type === 'Metaspace');
  }

  /** UTF-8, of which one token may hold only a part of a character; empty for an id that the vocabulary lacks. */
  bytes(id: number): Uint8Array {
    const added = this.#added.get(id);
    if (added !== undefined) return utf8.encode(added);
    const token = this.#tokenizer.id_to_token(id);
    return token === undefined ? nothing : this.#bytesOfToken(token);
  }

  /** The bytes as text; undefined where they are not whole characters. */
  text(id: number): string | undefined {
    const known = this.#texts.get(id);
    if (known !== undefined || this.#texts.has(id)) return known;
    const bytes = this.bytes(id);
    const text = isUtf8(bytes) ? Buffer.from(bytes).toString('utf8') : undefined;
    this.#texts.set(id, text);
    return text;
  }

  isSpecial(id: number): boolean {
    return this.#special.has(id);
  }
}

const flatten = (stage: Stage | null): Stage[] =>
  stage === null ? [] : stage.type === 'Sequence' ? (stage.decoders ?? []).flatMap(flatten) : [stage];

function isSpaceStage(stage: Stage): boolean {
  switch (stage.type) {
    case 'Replace':
      return stage.pattern?.String === '\u2581' && stage.content === ' ';
    case 'Metaspace':
      return (stage.replacement ?? '\u2581') === '\u2581';
    case 'Strip':
      return stage.content === ' ' && stage.start === 1 && stage.stop === 0;
    default:
      return stage.type === 'ByteFallback' || stage.type === 'Fuse';
  }
}

function spaceTokenBytes(token: string): Uint8Array {
  const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
  return byte === undefined ? utf8.encode(token.replaceAll('\u2581', ' ')) : Uint8Array.of(Number.parseInt(byte, 16));
}

/** The tokens marked special, and those that tokenizer_config.json names (bos_token, additional_special_tokens ...). */
function specialIds(added: readonly AddedToken[], config: Config, tokenizer: HuggingFaceTokenizer): number[] {
  const named = [
    ...Object.values(specialTokens(config)),
    ...(config.additional_special_tokens ?? []).map(tokenContent),
  ];
  return [
    ...added.filter((token) => token.special).map((token) => token.id),
    ...named.flatMap((token) => (token === undefined ? [] : (tokenizer.token_to_id(token) ?? []))),
  ];
}
