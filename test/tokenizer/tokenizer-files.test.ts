// What a model folder must hold, and the errors that say what it lacks.
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadTokenizer, TextTokenizer } from '../../lib/tokenizer/tokenizer';
import type { Config } from '../../lib/tokenizer/tokenizer-config';
import { filesOf, goldenFolder, kinds } from '../support/tiny-tokenizers';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'linattn-tokenizer-'));
  copyFileSync(join(goldenFolder, 'tokenizer.json'), join(folder, 'tokenizer.json'));
});
afterEach(() => rmSync(folder, { recursive: true }));
const write = (name: string, content: string | Uint8Array) => writeFileSync(join(folder, name), content);

test.each<[string, string, string | Uint8Array | undefined, RegExp]>([
  ['is missing', 'tokenizer.json', undefined, /must be there .* got no such file/],
  ['is not JSON', 'tokenizer.json', '{"model": ', /must be JSON, got/],
  ['is an array', 'tokenizer.json', '[]', /must be a JSON object, got \[\]/],
  ['has no model', 'tokenizer.json', '{}', /must have model.vocab/],
  ['is not UTF-8', 'tokenizer.json', Uint8Array.of(0x7b, 0xff, 0x7d), /must be UTF-8/],
  ['is not JSON', 'tokenizer_config.json', 'nope', /must be JSON/],
  ['is a string', 'tokenizer_config.json', '"text"', /must be a JSON object/],
  ['is not UTF-8', 'chat_template.jinja', Uint8Array.of(0xc3), /must be UTF-8/],
])('ERR_TOKENIZER names the file: it %s', async (_, name, content, message) => {
  rmSync(join(folder, name), { force: true });
  if (content !== undefined) write(name, content);
  const error = await loadTokenizer(folder).catch((e) => e);
  expect(error).toMatchObject({ code: 'ERR_TOKENIZER', message: expect.stringMatching(message) });
  expect(error.message).toContain(join(folder, name));
});

test('what @huggingface/tokenizers does not take is ERR_TOKENIZER with its reason as the cause', () => {
  const definition = { ...kinds['qwen3.5']!, normalizer: { type: 'Rot13' } };
  const error = (() => {
    try {
      return new TextTokenizer(filesOf(definition));
    } catch (e) {
      return e as Error;
    }
  })();
  expect(error).toMatchObject({ code: 'ERR_TOKENIZER', message: expect.stringContaining('Rot13') });
  expect((error as Error).cause).toBeDefined();
});

test('tokenizer.json alone is enough', async () => {
  const tokenizer = await loadTokenizer(folder);
  expect(tokenizer.decode(await tokenizer.encode('The keeper'))).toBe('The keeper');
  expect(tokenizer.hasChatTemplate).toBe(false);
});

test('chat_template.jinja is read', async () => {
  write('chat_template.jinja', '{{ messages[0].content }}?');
  const tokenizer = await loadTokenizer(folder);
  expect(tokenizer.applyChatTemplate([{ role: 'user', content: 'Why' }])).toBe('Why?');
});

test('added tokens that only tokenizer_config.json has are known', async () => {
  const token = { content: '<|extra|>', special: true, normalized: false };
  write('tokenizer_config.json', JSON.stringify({ added_tokens_decoder: { 1000: token } }));
  const tokenizer = await loadTokenizer(folder);
  expect([...(await tokenizer.encode('<|extra|>'))]).toEqual([1000]);
  expect(tokenizer.decode([1000])).toBe('');
  expect(tokenizer.size).toBe(1001);
});

test('an abort rejects with its reason', async () => {
  const reason = new Error('enough');
  await expect(loadTokenizer(folder, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
});

describe('what goes before a raw prompt', () => {
  const template = (...special: string[]) => ({
    type: 'TemplateProcessing',
    single: [...special.map((id) => ({ SpecialToken: { id, type_id: 0 } })), { Sequence: { id: 'A', type_id: 0 } }],
    pair: [],
    special_tokens: {},
  });
  const prefixOf = (post_processor: object | null, config: Config) => [
    ...new TextTokenizer(filesOf({ ...kinds['qwen3.5']!, post_processor }, config)).prefix,
  ];
  const bos = { bos_token: '<|im_start|>' };

  test.each([
    ['nothing', null, bos, []],
    ['what the post-processor puts there', template('<|im_start|>'), bos, [994]],
    ['the BOS that add_bos_token asks for', null, { ...bos, add_bos_token: true }, [994]],
    ['one BOS where both ask', template('<|im_start|>'), { ...bos, add_bos_token: true }, [994]],
    ['no BOS where add_bos_token forbids it', template('<|im_start|>'), { ...bos, add_bos_token: false }, []],
  ])('%s', (_, postProcessor, config, expected) => {
    expect(prefixOf(postProcessor, config)).toEqual(expected);
  });
});
