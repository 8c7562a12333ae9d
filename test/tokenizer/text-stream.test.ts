// Text out of ids one by one: the texts joined are the text of all ids, whatever the ids are.
import fc from 'fast-check';
import { TextTokenizer } from '../../lib/tokenizer/tokenizer';
import { filesOf, kinds, prose } from '../support/tiny-tokenizers';

const byteLevel = new TextTokenizer(filesOf(kinds['qwen3.5']!));
const spaceMark = new TextTokenizer(filesOf(kinds['llama 2']!));
afterAll(() => [byteLevel, spaceMark].map((tokenizer) => tokenizer.dispose()));
const streamed = (tokenizer: TextTokenizer, ids: readonly number[], options = {}) => {
  const stream = tokenizer.textStream(options);
  const texts = ids.map((id) => stream.push(id));
  return { texts, rest: stream.flush() };
};

describe.each([
  ['byte-level', byteLevel],
  ['llama 2', spaceMark],
])('%s', (_, tokenizer) => {
  const id = fc.integer({ min: 0, max: tokenizer.size + 3 });
  const bytesMostly = fc.oneof(fc.integer({ min: 0, max: 260 }), id);

  test('texts joined are the decoded ids, and UTF-8 is never split', () => {
    fc.assert(
      fc.property(fc.array(bytesMostly, { maxLength: 40 }), fc.boolean(), (ids, specialTokens) => {
        const { texts, rest } = streamed(tokenizer, ids, { specialTokens, begins: true });
        expect(texts.join('') + rest).toBe(tokenizer.decode(ids, { specialTokens }));
        for (const text of texts) expect(text).not.toMatch(/[\ud800-\udfff]/u); // a lone half of a pair
      }),
      { numRuns: 1000 },
    );
  });

  test('what was encoded comes back', async () => {
    const text = `${prose}\ud83d\udc68\u200d\ud83d\udc67 \u6f22\u5b57, \u00e9`;
    const ids = await tokenizer.encode(text);
    expect(tokenizer.decode(ids)).toBe(text);
  });
});

test('a character waits for its last byte', () => {
  const bytes = [...Buffer.from('a\ud83d\ude00b')].map((byte) => 3 + byte); // <0x00> has id 3
  expect(streamed(spaceMark, bytes)).toEqual({ texts: ['a', '', '', '', '\ud83d\ude00', 'b'], rest: '' });
  expect(streamed(spaceMark, bytes.slice(0, 3))).toEqual({ texts: ['a', '', ''], rest: '\ufffd' });
});

test('bytes in any order between whole tokens are what a decoder of all bytes makes of them', async () => {
  const [word] = await spaceMark.encode('the');
  const text = Buffer.from(spaceMark.textStream().push(word!));
  const byte = fc.oneof(fc.integer({ min: 0, max: 255 }), fc.constantFrom(0xf0, 0x9f, 0x98, 0x80, 0xc3, 0xa9, 0x41));
  fc.assert(
    fc.property(fc.array(fc.oneof(byte, fc.constant(undefined)), { maxLength: 30 }), (pieces) => {
      const ids = pieces.map((piece) => (piece === undefined ? word! : 3 + piece));
      const bytes = Buffer.concat(pieces.map((piece) => (piece === undefined ? text : Buffer.of(piece))));
      const { texts, rest } = streamed(spaceMark, ids);
      expect(texts.join('') + rest).toBe(new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes));
    }),
    { numRuns: 1000 },
  );
});

test('special tokens are left out unless asked for; unknown ids are nothing', () => {
  const ids = [994, 40, 996, 5000, -1, 995];
  const text = byteLevel.decode([40]);
  expect(streamed(byteLevel, ids).texts).toEqual(['', text, '<think>', '', '', '']);
  expect(streamed(byteLevel, ids, { specialTokens: true }).texts).toEqual([
    ...['<|im_start|>', text, '<think>', '', '', '<|im_end|>'],
  ]);
});

test('the space that Llama 2 puts before a text is taken away only where a text begins', async () => {
  const ids = [...(await spaceMark.encode('the night'))];
  expect(spaceMark.decode(ids)).toBe('the night');
  expect(streamed(spaceMark, ids).texts.join('')).toBe(' the night');
  expect(spaceMark.decode([1, ...ids])).toBe('the night');
});

test('a decoder that is not known is an error', () => {
  const definition = { ...kinds['qwen3.5']!, decoder: { type: 'WordPiece' } };
  expect(() => new TextTokenizer(filesOf(definition))).toThrow(
    expect.objectContaining({ code: 'ERR_TOKENIZER', message: expect.stringMatching(/decoder .* got WordPiece/) }),
  );
});
