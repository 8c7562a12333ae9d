// Long text goes through the worker and known beginnings are not encoded again; both give the ids of the whole.
import fc from 'fast-check';
import { Encoder } from '../../lib/tokenizer/encoder';
import { type Progress, TextTokenizer } from '../../lib/tokenizer/tokenizer';
import { filesOf, kinds, prose, unknownKind } from '../support/tiny-tokenizers';

const definition = kinds['qwen3.5']!;
const direct = new Encoder(definition, {});
const long = `${prose}<|im_end|>\n`.repeat(14); // some 200,000 characters: four batches
const question = '\n\nWhat does the keeper write?';

let tokenizer: TextTokenizer;
beforeAll(() => {
  tokenizer = new TextTokenizer(filesOf(definition));
});
afterAll(() => tokenizer.dispose());

/** How many characters were encoded on this thread while fn ran. */
async function encodedHere(fn: () => Promise<unknown>): Promise<number> {
  const spy = jest.spyOn(Encoder.prototype, 'encodePieces');
  await fn();
  const characters = spy.mock.calls.reduce((sum, [text]) => sum + text.length, 0);
  spy.mockRestore();
  return characters;
}

test('long text is encoded in the worker, with the ids of the whole and progress in characters', async () => {
  const seen: Progress[] = [];
  const here = await encodedHere(async () => {
    const ids = await tokenizer.encode(long, { onProgress: (progress) => seen.push(progress) });
    expect(ids).toEqual(direct.encode(long));
  });
  expect(here).toBe(0);
  expect(seen.length).toBeGreaterThanOrEqual(3);
  expect(seen.every(({ total }) => total === long.length)).toBe(true);
  expect(seen.map(({ done }) => done)).toEqual([...new Set(seen.map(({ done }) => done))].sort((a, b) => a - b));
  expect(seen.at(-1)).toEqual({ done: long.length, total: long.length });
});

test('a known text is not encoded again, an extended one only from its last cut', async () => {
  await tokenizer.encode(long);
  const expected = direct.encode(long + question);
  let ids: Int32Array | undefined;
  expect(await encodedHere(() => tokenizer.encode(long))).toBe(0);
  const here = await encodedHere(async () => {
    ids = await tokenizer.encode(long + question);
  });
  expect(ids).toEqual(expected);
  expect(here).toBeLessThanOrEqual(2048 + question.length);
  expect(here).toBeGreaterThanOrEqual(question.length);
});

test("the ids given out are the caller's own", async () => {
  (await tokenizer.encode(long)).fill(0);
  expect(await tokenizer.encode(long)).toEqual(direct.encode(long));
});

test('whatever was encoded before, the ids are those of the whole', async () => {
  const base = prose.slice(0, 12_000);
  const edit = fc.record({
    at: fc.integer({ min: 0, max: base.length }),
    remove: fc.integer({ min: 0, max: 3000 }),
    insert: fc.constantFrom('', ' ', '\n\n', 'x', '<|im_end|>', '|im_end|>', '\u0301', ' and so on. '),
  });
  await fc.assert(
    fc.asyncProperty(edit, async ({ at, remove, insert }) => {
      const text = base.slice(0, at) + insert + base.slice(at + remove);
      expect(await tokenizer.encode(text)).toEqual(direct.encode(text));
    }),
    { numRuns: 60 },
  );
});

test('several texts at once do not mix', async () => {
  const texts = ['a', 'b', 'c'].map((letter) => letter + long);
  const all = await Promise.all(texts.map((text) => tokenizer.encode(text)));
  expect(all).toEqual(texts.map((text) => direct.encode(text)));
});

test('a tokenizer of an unknown kind is encoded as a whole in the worker, and not twice', async () => {
  const unknown = new TextTokenizer(filesOf(unknownKind));
  const expected = new Encoder(unknownKind, {}).encode(prose);
  expect(await unknown.encode(prose)).toEqual(expected);
  expect(await encodedHere(() => unknown.encode(prose))).toBe(0);
  expect(await unknown.encode(prose)).toEqual(expected);
  unknown.dispose();
});

describe('abort', () => {
  const reason = new Error('enough');

  test('before: rejects with the reason', async () => {
    await expect(tokenizer.encode('a', { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  test('in the middle: rejects at once, later texts are not disturbed', async () => {
    const controller = new AbortController();
    const seen: number[] = [];
    const text = `fresh ${long}`;
    const run = tokenizer.encode(text, {
      signal: controller.signal,
      onProgress: ({ done }) => {
        seen.push(done);
        controller.abort(reason);
      },
    });
    await expect(run).rejects.toBe(reason);
    expect(seen).toHaveLength(1);
    expect(await tokenizer.encode(text)).toEqual(direct.encode(text));
    expect(seen).toHaveLength(1);
  });

  test('a text that cannot be cut does not keep the worker busy', async () => {
    const text = 'x'.repeat(500_000);
    const run = tokenizer.encode(text, { signal: AbortSignal.timeout(20) });
    await expect(run).rejects.toMatchObject({ name: 'TimeoutError' });
    expect(await tokenizer.encode(`again ${long}`)).toEqual(direct.encode(`again ${long}`));
  });

  test('after: changes nothing', async () => {
    const controller = new AbortController();
    const ids = await tokenizer.encode(long, { signal: controller.signal });
    controller.abort();
    expect(ids).toEqual(direct.encode(long));
  });
});

test('an error in onProgress rejects and does no harm', async () => {
  const error = new Error('mine');
  const onProgress = () => {
    throw error;
  };
  await expect(tokenizer.encode(`other ${long}`, { onProgress })).rejects.toBe(error);
  await expect(tokenizer.encode('short', { onProgress })).rejects.toBe(error);
  expect(await tokenizer.encode('short')).toEqual(direct.encode('short'));
});

test('dispose rejects what is in work and what comes later, and may be called twice', async () => {
  const own = new TextTokenizer(filesOf(definition));
  const run = own.encode(long);
  own.dispose();
  own.dispose();
  await expect(run).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  await expect(own.encode('a')).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
});

test('a worker that fails is ERR_TOKENIZER, and the next text gets a new one', async () => {
  const files = filesOf(definition);
  const bytes = new Uint8Array(files.definitionBytes);
  const good = bytes.slice();
  bytes.fill(0);
  const own = new TextTokenizer(files);
  await expect(own.encode(long)).rejects.toMatchObject({ code: 'ERR_TOKENIZER' });
  bytes.set(good);
  expect(await own.encode(long)).toEqual(direct.encode(long));
  own.dispose();
});

test.each([[undefined], [null], [7], [['a']]])('%j is no text', async (text) => {
  await expect(tokenizer.encode(text as unknown as string)).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
});

test('nothing is nothing', async () => {
  expect(await tokenizer.encode('')).toHaveLength(0);
  expect(tokenizer.decode([])).toBe('');
});
