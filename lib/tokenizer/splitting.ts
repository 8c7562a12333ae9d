// How the tokenizers known here split a text into words that they encode one by one, and from that: where a text may
// be cut so that its pieces have the ids of the whole.

import { toByteChars } from './byte-alphabet';
import type { Definition, HuggingFaceTokenizer, PreTokenizer, Stage } from './huggingface';

export interface Splitting {
  /**
   * The words of a section (the text between two added tokens) as the merge table takes them.
   * `first`: the section begins the text; `continued`: it goes on where a cut was made.
   */
  words(section: string, first: boolean, continued: boolean): string[];
  /** The characters of the vocabulary that a word stands for. */
  symbols(word: string): string;
  /** True when no word of any text spans position p, whatever stands further left or right. */
  isBoundary(text: string, p: number): boolean;
}

/** Undefined for a tokenizer of another kind, which can only encode a text as a whole. */
export function splittingOf(definition: Definition, tokenizer: HuggingFaceTokenizer): Splitting | undefined {
  const { model, added_tokens } = definition;
  if (model.type !== undefined && model.type !== 'BPE') return undefined;
  if (model.dropout || model.end_of_word_suffix || model.continuing_subword_prefix) return undefined;
  // These take spaces or context around them, which a cut would hide.
  if (added_tokens.some((token) => token.lstrip || token.rstrip || token.single_word)) return undefined;
  const normalizers = flatten(definition.normalizer, 'normalizers');
  if (normalizers.length > 0 && added_tokens.some((token) => token.normalized ?? !token.special)) return undefined;
  return byteLevel(definition, normalizers, tokenizer) ?? spaceMark(definition, normalizers);
}

const flatten = (stage: Stage | null, list: 'normalizers' | 'pretokenizers'): Stage[] =>
  stage === null ? [] : stage.type === 'Sequence' ? (stage[list] ?? []).flatMap((s) => flatten(s, list)) : [stage];

// The patterns of GPT-4 and those that came from it: Llama 3, Qwen2, Qwen3.5, GPT-4o.
const contraction = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const spaces = '\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const upper = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]';
const lower = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]';
const before = '[^\\r\\n\\p{L}\\p{N}]?';
const patterns = new Set([
  ...['\\p{N}', '\\p{N}{1,3}'].flatMap((digits) => [
    `${contraction}|${before}\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${spaces}`,
    `${contraction}|${before}[\\p{L}\\p{M}]+|${digits}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|${spaces}`,
  ]),
  `${before}${upper}*${lower}+${contraction}?|${before}${upper}+${lower}*${contraction}?|` +
    `\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${spaces}`,
]);

// What ByteLevel has built in. White_Space is Hugging Face's \s; JavaScript's differs in U+0085 and U+FEFF.
const gpt2Pattern =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

function byteLevel(
  { pre_tokenizer, model }: Definition,
  normalizers: readonly Stage[],
  tokenizer: HuggingFaceTokenizer,
): Splitting | undefined {
  if (model.byte_fallback || (model.fuse_unk && model.unk_token)) return undefined;
  if (normalizers.length > 1 || (normalizers[0] && normalizers[0].type !== 'NFC')) return undefined;
  const stages = flatten(pre_tokenizer, 'pretokenizers');
  const splitters = leaves(tokenizer.pre_tokenizer);
  const last = stages.at(-1);
  if (last?.type !== 'ByteLevel' || last.add_prefix_space || stages.length !== splitters.length) return undefined;
  const split = stages[0]!;
  const isNfc = normalizers.length === 1;
  const symbols = (word: string) => toByteChars(word);
  const isBoundary = isByteLevelBoundary;
  const normal = (section: string) => (isNfc ? section.normalize('NFC') : section);
  if (stages.length === 2 && split.type === 'Split' && isKnownSplit(split) && !(last.use_regex ?? true)) {
    const pattern = splitters[0]!.pattern!;
    return { symbols, isBoundary, words: (section) => normal(section).match(pattern) ?? [] };
  }
  const isGpt2 = (last.use_regex ?? true) && (stages.length === 1 || (stages.length === 2 && split.type === 'Digits'));
  if (!isGpt2) return undefined;
  const parts = (section: string) => (stages.length === 1 ? [section] : splitters[0]!.pre_tokenize(section));
  return {
    symbols,
    isBoundary,
    words: (section) => parts(normal(section)).flatMap((part) => part.match(gpt2Pattern) ?? []),
  };
}

const leaves = (stage: PreTokenizer | null): PreTokenizer[] =>
  stage === null ? [] : stage.tokenizers ? stage.tokenizers.flatMap(leaves) : [stage];

const isKnownSplit = ({ pattern, behavior, invert }: Stage): boolean =>
  // The patterns match every character, so that what is isolated and what is kept after removing the rest is the same.
  patterns.has(pattern?.Regex ?? '') && (invert ? behavior === 'Removed' : behavior === 'Isolated');

const isSpace = (char: string | undefined): boolean => char === undefined || /[\s\u0085]/.test(char);
const punctuation = new Set('!"#$%&()*+,.:;<=>?@[\\]^_`{|}~\u2026\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f');

/**
 * Three places where every pattern above ends a word, also when the text ends there, and where NFC changes nothing:
 * before a space that follows a visible character; before punctuation (no apostrophe: contractions) that follows a
 * letter; after a line feed with visible characters on both sides (no slash: GPT-4o's pattern takes it along).
 */
function isByteLevelBoundary(text: string, p: number): boolean {
  const left = text[p - 1]!;
  const right = text[p]!;
  if (right === ' ') return !isSpace(left);
  if (left === '\n') return right !== '/' && !isSpace(right) && !isSpace(text[p - 2]);
  // NFC turns some letters into a letter and a mark, which is not part of a word in every pattern.
  const letter = codePointBefore(text, p);
  return punctuation.has(right) && /\p{L}$/u.test(letter) && /\p{L}$/u.test(letter.normalize('NFC'));
}

const codePointBefore = (text: string, p: number): string =>
  text.slice(/[\udc00-\udfff]/.test(text[p - 1]!) ? Math.max(0, p - 2) : p - 1, p);

const mark = '\u2581';

/** Tokenizers in Llama 2's manner: a space is written as U+2581 and merges run over the whole section. */
function spaceMark(
  { normalizer, pre_tokenizer, model }: Definition,
  normalizers: readonly Stage[],
): Splitting | undefined {
  const prefix = prefixOf(normalizers, pre_tokenizer);
  if (prefix === undefined || !model.byte_fallback || !hasAllBytes(model.vocab)) return undefined;
  if (model.ignore_merges) return undefined; // a whole text may be one token, and a word in it then is not
  // No merge crosses a place that lies inside no token: the words between such places are independent.
  const tokens = Object.keys(model.vocab).filter((token) => token.length > 1);
  if (tokens.some((token) => token.includes(mark) && !/^\u2581*[^\u2581]*$/.test(token))) return undefined;
  if (tokens.some((token) => token.includes('\n'))) return undefined;
  const isSplitAtEachMark = normalizer === null && pre_tokenizer?.split !== false;
  const pattern = isSplitAtEachMark ? /\n|\u2581[^\u2581\n]*|[^\u2581\n]+/g : /\n|\u2581+[^\u2581\n]*|[^\u2581\n]+/g;
  return {
    symbols: (word) => word,
    isBoundary: (text, p) => text[p - 1] === '\n' || (text[p] === ' ' && text[p - 1] !== ' ' && text[p - 1] !== mark),
    words(section, first, continued) {
      const marked = section.replaceAll(' ', mark);
      const isPrefixed =
        !continued && (prefix === 'always' || (!marked.startsWith(mark) && (prefix === 'unmarked' || first)));
      return (isPrefixed ? mark + marked : marked).match(pattern) ?? [];
    },
  };
}

/** Which sections get a mark before them; 'unmarked' and 'first' pass over those that begin with one. */
function prefixOf(normalizers: readonly Stage[], pre: Stage | null): 'always' | 'unmarked' | 'first' | undefined {
  if (pre === null) {
    const [prepend, replace] = normalizers;
    const isLlama = prepend?.type === 'Prepend' && prepend.prepend === mark && replace?.type === 'Replace';
    const isSpaceReplaced = replace?.pattern?.String === ' ' && replace.content === mark;
    return normalizers.length === 2 && isLlama && isSpaceReplaced ? 'always' : undefined;
  }
  if (pre.type !== 'Metaspace' || normalizers.length > 0 || pre.replacement !== mark) return undefined;
  return pre.prepend_scheme === 'first' ? 'first' : pre.prepend_scheme === 'always' ? 'unmarked' : undefined;
}

const hasAllBytes = (vocab: Readonly<Record<string, number>>): boolean =>
  Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`).every(
    (token) => token in vocab,
  );
