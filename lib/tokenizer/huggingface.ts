// The part of @huggingface/tokenizers and @huggingface/jinja that is used here, typed by hand: their own declarations
// do not compile under module node16 (relative imports without extensions).

export interface HuggingFaceTokenizer {
  readonly normalizer: unknown;
  readonly pre_tokenizer: PreTokenizer | null;
  readonly model: {
    encode(words: readonly string[]): string[];
    readonly merges: readonly (readonly [string, string])[];
  };
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
  get_vocab(): Map<string, number>;
}
export interface PreTokenizer {
  /** Of Split and ByteLevel: what they match, as a global JavaScript pattern. */
  readonly pattern?: RegExp;
  /** Of Sequence. */
  readonly tokenizers?: readonly PreTokenizer[];
  pre_tokenize(text: string | readonly string[]): string[];
}
export const HuggingFaceTokenizer = (
  require('@huggingface/tokenizers') as {
    Tokenizer: new (definition: object, config: object) => HuggingFaceTokenizer;
  }
).Tokenizer;

export interface Template {
  render(variables: Record<string, unknown>): string;
}
export const Template = (require('@huggingface/jinja') as { Template: new (source: string) => Template }).Template;

/** tokenizer.json, as far as it is read here. */
export interface Definition {
  readonly added_tokens: readonly AddedToken[];
  readonly normalizer: Stage | null;
  readonly pre_tokenizer: Stage | null;
  readonly decoder: Stage | null;
  readonly post_processor: object | null;
  readonly model: {
    readonly type?: string;
    readonly vocab: Readonly<Record<string, number>>;
    readonly merges?: readonly (string | readonly [string, string])[];
    readonly unk_token?: string | null;
    readonly fuse_unk?: boolean;
    readonly ignore_merges?: boolean;
    readonly byte_fallback?: boolean;
    readonly dropout?: number | null;
    readonly continuing_subword_prefix?: string | null;
    readonly end_of_word_suffix?: string | null;
  };
}
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special?: boolean;
  readonly normalized?: boolean;
  readonly lstrip?: boolean;
  readonly rstrip?: boolean;
  readonly single_word?: boolean;
}
/** A normalizer, pre-tokenizer or decoder: its type and its own fields. */
export interface Stage {
  readonly type: string;
  readonly normalizers?: readonly Stage[];
  readonly pretokenizers?: readonly Stage[];
  readonly decoders?: readonly Stage[];
  readonly pattern?: { readonly String?: string; readonly Regex?: string };
  readonly content?: string;
  readonly prepend?: string;
  readonly behavior?: string;
  readonly invert?: boolean;
  readonly add_prefix_space?: boolean;
  readonly use_regex?: boolean;
  readonly replacement?: string;
  readonly prepend_scheme?: string;
  readonly split?: boolean;
  readonly start?: number;
  readonly stop?: number;
}
