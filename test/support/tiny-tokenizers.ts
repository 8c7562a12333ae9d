// Small tokenizers of each kind that lib/tokenizer knows: the golden vocabulary under other word patterns, and a
// vocabulary in Llama 2's manner trained here.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Definition, Stage } from '../../lib/tokenizer/huggingface';
import type { Config } from '../../lib/tokenizer/tokenizer-config';
import { completed, type TokenizerFiles } from '../../lib/tokenizer/tokenizer-files';

export const goldenFolder = join(__dirname, '..', 'golden', 'tokenizer');
const readJson = (name: string) => JSON.parse(readFileSync(join(goldenFolder, name), 'utf8'));
const golden = completed(readJson('tokenizer.json') as Definition, {});
const corpus = readFileSync(join(goldenFolder, '..', 'scripts', 'corpus.txt'), 'utf8');
/** Real English, 15,000 characters. */
export const prose = `${corpus}
${readFileSync(join(__dirname, '..', '..', 'LICENSE'), 'utf8')}`;

const bytes = (useRegex: boolean): Stage => ({ type: 'ByteLevel', add_prefix_space: false, use_regex: useRegex });
const split = (Regex: string): Stage => ({
  type: 'Sequence',
  pretokenizers: [{ type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false }, bytes(false)],
});
const qwen35 = golden.pre_tokenizer!.pretokenizers![0]!.pattern!.Regex!;
const qwen2 = qwen35.replace('[\\p{L}\\p{M}]+', '\\p{L}+').replace('[^\\s\\p{L}\\p{M}\\p{N}]', '[^\\s\\p{L}\\p{N}]');
const llama3 = qwen2.replace('|\\p{N}|', '|\\p{N}{1,3}|');
const gpt4o =
  "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?" +
  "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?" +
  '|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';

const withSplit = (pre_tokenizer: Stage, normalizer: Stage | null = null): Definition => ({
  ...golden,
  normalizer,
  pre_tokenizer,
});

/** By name; all can be cut. */
export const kinds: Readonly<Record<string, Definition>> = {
  'qwen3.5': golden,
  qwen2: withSplit(split(qwen2), { type: 'NFC' }),
  'llama 3': withSplit(split(llama3)),
  'gpt-4o': withSplit(split(gpt4o)),
  'gpt-2': withSplit(bytes(true)),
  'gpt-2 with single digits': withSplit({
    type: 'Sequence',
    pretokenizers: [{ type: 'Digits', individual_digits: true } as Stage, bytes(true)],
  }),
  'llama 2': spaceMark({
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '\u2581' },
        { type: 'Replace', pattern: { String: ' ' }, content: '\u2581' },
      ],
    },
    pre_tokenizer: null,
  }),
  'llama 2 with a mark before the first section': spaceMark({
    normalizer: null,
    pre_tokenizer: { type: 'Metaspace', replacement: '\u2581', prepend_scheme: 'first', split: false },
  }),
};

/** A kind that lib/tokenizer does not know: encoded as a whole. */
export const unknownKind: Definition = withSplit(split(`${qwen35}|\\p{L}{3}`), { type: 'NFC' });

export const filesOf = (definition: Definition, config: Config = {}): TokenizerFiles => {
  const json = Buffer.from(JSON.stringify(definition));
  const definitionBytes = new SharedArrayBuffer(json.length);
  Buffer.from(definitionBytes).set(json);
  return { definition, definitionBytes, config, chatTemplate: undefined };
};

function spaceMark(stages: Pick<Definition, 'normalizer' | 'pre_tokenizer'>): Definition {
  const byteTokens = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`);
  const merges = trainedMerges(corpus.replaceAll(' ', '\u2581').match(/\u2581+[^\u2581\n]*|[^\u2581\n]+/g)!, 300);
  const characters = new Set(merges.flat().flatMap((token) => [...token]));
  const tokens = ['<unk>', '<s>', '</s>', ...byteTokens, ...characters, ...merges.map((pair) => pair.join(''))];
  const vocab = Object.fromEntries([...new Set(tokens)].map((token, id) => [token, id]));
  return {
    added_tokens: ['<unk>', '<s>', '</s>'].map((content, id) => ({ id, content, special: true, normalized: false })),
    ...stages,
    post_processor: null,
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '\u2581' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      type: 'BPE',
      vocab,
      merges,
      unk_token: '<unk>',
      fuse_unk: true,
      byte_fallback: true,
    } as Definition['model'],
  };
}

/** Byte-pair encoding: the most frequent neighbours become one symbol, again and again. */
function trainedMerges(words: readonly string[], count: number): [string, string][] {
  let split = words.slice(0, 4000).map((word) => [...word]);
  const merges: [string, string][] = [];
  while (merges.length < count) {
    const frequency = new Map<string, number>();
    for (const symbols of split)
      for (let i = 1; i < symbols.length; i++) {
        const pair = `${symbols[i - 1]} ${symbols[i]}`;
        frequency.set(pair, (frequency.get(pair) ?? 0) + 1);
      }
    const best = [...frequency].reduce((a, b) => (b[1] > a[1] ? b : a))[0].split(' ') as [string, string];
    merges.push(best);
    split = split.map((symbols) => {
      const merged: string[] = [];
      for (const symbol of symbols) {
        if (merged.at(-1) === best[0] && symbol === best[1]) merged[merged.length - 1] = best.join('');
        else merged.push(symbol);
      }
      return merged;
    });
  }
  return merges;
}
