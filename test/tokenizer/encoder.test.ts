// Encoding in pieces equals encoding the whole, for every kind of tokenizer that is known and every place of a cut.
import fc from 'fast-check';
import { Encoder, pieceEnds } from '../../lib/tokenizer/encoder';
import type { Stage } from '../../lib/tokenizer/huggingface';
import { kinds, prose, unknownKind } from '../support/tiny-tokenizers';

const words = [
  ...[' ', '  ', '   ', '\n', '\n\n', '\r\n', '\t', '\u00a0', '\u3000', '\u001c', '\u2028'],
  ...['a', 'the', ' The keeper', 'WORLD', 'camelCase', '1', '123', '4567', '\u00b2'],
  ...["'s", "'RE", "'", "''", '!', '...', '/', '//', '.\n', '<', '|>', '_', '-', '\u3002', '\uff0c', '{"a":1}'],
  ...[
    '\u00e9',
    'e\u0301',
    '\u0301',
    '\u0958',
    '\u0915\u093c',
    '\ud55c',
    '\u1112\u1161\u11ab',
    '\u6f22\u5b57',
    '\u212b',
  ],
  ...['\ud83d\ude00', '\ud83d\udc68\u200d\ud83d\udc67', '\ud83d', '\u2581', '\u2581\u2581'],
  ...['<|im_start|>', '<|im_end|>', '<think>', '<s>', '</s>', '<|im'],
];
// Where JavaScript and Hugging Face disagree on white space, @huggingface/tokenizers follows JavaScript in GPT-2's pattern.
const disputed = ['\u0085', '\ufeff'];
const textOf = (units: readonly string[]) =>
  fc
    .array(fc.oneof({ weight: 8, arbitrary: fc.constantFrom(...units) }, { weight: 1, arbitrary: fc.string() }), {
      maxLength: 24,
    })
    .map((parts) => parts.join(''));

describe.each(Object.entries(kinds))('%s', (_, definition) => {
  const encoder = new Encoder(definition, {});
  const whole = (text: string) => [...encoder.encode(text)];

  test('encodes as @huggingface/tokenizers does', () => {
    fc.assert(
      fc.property(textOf(words), (text) => {
        expect(whole(text)).toEqual(encoder.tokenizer.encode(text, { add_special_tokens: false }).ids);
      }),
      { numRuns: 500 },
    );
  });

  test('encodes long words as @huggingface/tokenizers does', () => {
    const parts = ['th', 'e', 'in', 'g', 'a', 't', 'o', 'n', '\u00e9', '\u6f22', '\ud83d\ude00', 'zzz'];
    const kindsOfWords = [
      fc.constantFrom(...parts),
      fc.constant(' '),
      fc.constantFrom('\n', ' '),
      fc.constantFrom('-', '='),
    ];
    const word = fc.oneof(...kindsOfWords.map((part) => fc.array(part, { minLength: 65, maxLength: 300 })));
    fc.assert(
      fc.property(word, (found) => {
        const text = found.join('');
        expect(whole(text)).toEqual(encoder.tokenizer.encode(text, { add_special_tokens: false }).ids);
      }),
      { numRuns: 100 },
    );
  });

  test('gives the ids of the whole wherever a text may be cut', () => {
    let cuts = 0;
    fc.assert(
      fc.property(textOf([...words, ...disputed]), (text) => {
        const ids = whole(text);
        for (let p = 1; p < text.length; p++) {
          if (!encoder.mayCut(text, p)) continue;
          cuts++;
          expect([text, p, ...encoder.encode(text.slice(0, p)), ...encoder.encode(text.slice(p), true)]).toEqual([
            text,
            p,
            ...ids,
          ]);
        }
      }),
      { numRuns: 1000 },
    );
    expect(cuts).toBeGreaterThan(500);
  });

  test('cuts prose into pieces of at most 2,048 characters and no fewer than needed', () => {
    const ends = [...pieceEnds(prose, 0, (text, p) => encoder.mayCut(text, p))];
    expect(prose.length).toBeGreaterThan(4096);
    expect(ends.at(-1)).toBe(prose.length);
    const lengths = ends.map((end, i) => end - (ends[i - 1] ?? 0));
    expect(Math.max(...lengths)).toBeLessThanOrEqual(2048);
    expect(Math.min(...lengths.slice(0, -1))).toBeGreaterThan(1900);
    const { ids, counts } = encoder.encodePieces(prose, ends, false);
    expect([...ids]).toEqual(encoder.tokenizer.encode(prose, { add_special_tokens: false }).ids);
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(ids.length);
  });

  test('never cuts an added token or right after one', () => {
    for (const { content } of definition.added_tokens) {
      const text = `one ${content} two${content}three`;
      for (const at of [text.indexOf(content), text.lastIndexOf(content)]) {
        for (let p = at + 1; p <= at + content.length; p++)
          expect([text, p, encoder.mayCut(text, p)]).toEqual([text, p, false]);
      }
    }
  });
});

test('a merge of what is no token leaves long words to @huggingface/tokenizers', () => {
  const definition = kinds['llama 2']!;
  const merges = [['\u6f22', '\u5b57'], ...definition.model.merges!];
  const encoder = new Encoder({ ...definition, model: { ...definition.model, merges } as never }, {});
  const text = '\u6f22\u5b57the'.repeat(40);
  expect([...encoder.encode(text)]).toEqual(encoder.tokenizer.encode(text, { add_special_tokens: false }).ids);
});

// @huggingface/tokenizers ignores `split`; the ids are those of the Python package tokenizers 0.23.3.
test.each([
  [true, [313, 261, 331, 261, 261, 327], [261, 123, 13, 13, 261, 596, 312]],
  [undefined, [313, 261, 331, 261, 261, 327], [261, 123, 13, 13, 261, 596, 312]],
  [false, [313, 322, 273, 322, 327], [261, 123, 13, 13, 322, 278, 312]],
])('Metaspace with split %s', (split, spaced, lines) => {
  const definition = kinds['llama 2 with a mark before the first section']!;
  const pre_tokenizer = { ...definition.pre_tokenizer!, split } as Stage;
  const encoder = new Encoder({ ...definition, pre_tokenizer }, {});
  expect([...encoder.encode('a  b   c')]).toEqual(spaced);
  expect([...encoder.encode('x\n\n  y the')]).toEqual(lines);
});

test('two tokens of one id leave long words to @huggingface/tokenizers', () => {
  const definition = kinds['llama 2']!;
  const [[, right]] = definition.model.merges as unknown as [[string, string]];
  const vocab = { ...definition.model.vocab, '@': definition.model.vocab[right]! };
  const encoder = new Encoder({ ...definition, model: { ...definition.model, vocab } }, {});
  const text = `${'the'.repeat(20)}@${'@the'.repeat(20)}`;
  expect([...encoder.encode(text)]).toEqual(encoder.tokenizer.encode(text, { add_special_tokens: false }).ids);
});

test('words in a text that would be tokens alone are merged where a text is one word to @huggingface/tokenizers', () => {
  const definition = kinds['llama 2']!;
  const vocab = { ...definition.model.vocab, '\u2581whole': 9000, w: 9001 };
  const encoder = new Encoder({ ...definition, model: { ...definition.model, vocab, ignore_merges: true } }, {});
  for (const text of ['a whole thing', 'whole']) {
    expect([...encoder.encode(text)]).toEqual(encoder.tokenizer.encode(text, { add_special_tokens: false }).ids);
  }
});

test('a run of spaces takes a fraction of the time of @huggingface/tokenizers', () => {
  const timeOf = (work: () => unknown): number => {
    const start = performance.now();
    work();
    return performance.now() - start;
  };
  const encoder = new Encoder(kinds['qwen3.5']!, {});
  encoder.encode(' '.repeat(1000));
  const spaces = ' '.repeat(60_000);
  const symbols = '\u0120'.repeat(60_000);
  expect(3 * timeOf(() => encoder.encode(spaces))).toBeLessThan(
    timeOf(() => encoder.tokenizer.model.encode([symbols])),
  );
});

test('a text that can be cut nowhere is one piece', () => {
  const encoder = new Encoder(kinds['qwen3.5']!, {});
  const text = 'x'.repeat(10_000);
  expect([...pieceEnds(`${text} ${text}`, 0, (whole, p) => encoder.mayCut(whole, p))]).toEqual([10_000, 20_001]);
});

test('a tokenizer of an unknown kind is encoded as a whole, by @huggingface/tokenizers', () => {
  const encoder = new Encoder(unknownKind, {});
  expect(encoder.cuts).toBe(false);
  expect([...prose.slice(0, 5000)].some((_, p) => encoder.mayCut(prose, p))).toBe(false);
  expect([...encoder.encode(prose)]).toEqual(encoder.tokenizer.encode(prose, { add_special_tokens: false }).ids);
});

test.each([
  ['lstrip', { lstrip: true }],
  ['rstrip', { rstrip: true }],
  ['single_word', { single_word: true }],
])('added tokens with %s make a tokenizer one of an unknown kind', (_, flags) => {
  const definition = kinds['qwen3.5']!;
  const added_tokens = [...definition.added_tokens, { id: 2000, content: '<mask>', special: true, ...flags }];
  expect(new Encoder({ ...definition, added_tokens }, {}).cuts).toBe(false);
});

test('the white space of GPT-2 is that of Hugging Face: U+0085 is one, U+FEFF is not', () => {
  const encoder = new Encoder(kinds['gpt-2']!, {});
  const ids = (...words: string[]) => words.flatMap((word) => [...encoder.encode(word)]);
  expect(ids("'s")).toHaveLength(1);
  expect(ids("\ufeff's")).toEqual(ids("\ufeff'", 's'));
  expect(ids("\u0085's")).toEqual(ids('\u0085', "'s"));
  expect(ids(' \u0085a')).toEqual(ids(' ', '\u0085', 'a'));
});
