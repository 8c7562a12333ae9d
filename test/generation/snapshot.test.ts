// Snapshots: kept, saved and read back, they go on as if nobody had stopped; what is not whole never loads.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { load } from '../../lib/generation/load';
import type { Model } from '../../lib/generation/model';
import type { Session } from '../../lib/generation/session';
import { nd } from '../../lib/ops/reference';
import { relativeError, seeded } from '../support/arrays';
import { readGolden } from '../support/golden';
import { collectForgotten, used } from '../support/held';

const names = ['qwen3_5/grouped', 'gated_deltanet/hybrid'];
const vector = (values: Float32Array) => nd([values.length], Float64Array.from(values));

beforeAll(collectForgotten);

describe.each(names)('%s', (name) => {
  const { folder } = readGolden(name);
  const random = seeded(11);
  const prompt = Int32Array.from({ length: 330 }, () => random.int(200));
  const more = Int32Array.from({ length: 90 }, () => random.int(200));
  const others = Int32Array.from({ length: 90 }, () => random.int(200));
  let model: Model;
  let scratch: string;

  beforeAll(async () => {
    model = await load({ model: folder, maxSequences: 8, maxSnapshots: 3 });
    scratch = mkdtempSync(path.join(tmpdir(), 'linattn-snapshot-'));
  });
  afterAll(async () => {
    await model.dispose();
    rmSync(scratch, { recursive: true });
  });

  async function reading(tokens: Int32Array, from?: Parameters<Model['createSession']>[0]): Promise<Session> {
    const session = model.createSession(from);
    await session.prefill({ tokens });
    return session;
  }
  /** Logits after `prompt` and `rest`, read by a session that never stopped. */
  async function straight(...rest: Int32Array[]): Promise<Float32Array> {
    const session = await reading(prompt);
    for (const append of rest) await session.prefill({ append });
    const logits = await session.logits();
    await session.dispose();
    return logits;
  }
  async function saved(tokens = prompt, options = {}): Promise<Uint8Array> {
    const session = await reading(tokens);
    const snapshot = await session.snapshot();
    await session.dispose();
    const bytes = await snapshot.serialize(options);
    snapshot.dispose();
    return bytes;
  }

  test('a snapshot outlives its session and starts others', async () => {
    const before = await used();
    const session = await reading(prompt);
    const snapshot = await session.snapshot();
    await session.prefill({ append: others });
    await session.dispose();
    expect(snapshot.length).toBe(330);
    for (const append of [more, others]) {
      const next = model.createSession({ from: snapshot });
      expect(await next.prefill({ append })).toMatchObject({ promptTokens: 420, cachedTokens: 330 });
      expect(await next.logits()).toEqual(await straight(append));
      await next.dispose();
    }
    const held = (await used()) - before;
    expect(held).toBeGreaterThanOrEqual(snapshot.byteLength);
    expect(held).toBeLessThan(snapshot.byteLength + 4096); // the allocator rounds the logits up
    snapshot.dispose();
    snapshot.dispose();
    expect(await used()).toBe(before);
    expect(() => model.createSession({ from: snapshot })).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
    await expect(snapshot.serialize()).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  });

  test('what was saved goes on in another load of the model, from a file, from bytes and from a stream', async () => {
    const session = await reading(prompt);
    const first = await session.generate({ maxTokens: 9, temperature: 0.8, seed: 3, ignoreEos: true }).result;
    const snapshot = await session.snapshot();
    const rest = await session.generate({ maxTokens: 40, temperature: 0.8, seed: 3, ignoreEos: true }).result;
    const logits = await session.logits();
    const file = path.join(scratch, 'state');
    writeFileSync(file, 'what was there');
    await snapshot.save(file);
    expect(readdirSync(scratch)).toEqual(['state']);
    const bytes = new Uint8Array(readFileSync(file));
    expect(await snapshot.serialize()).toEqual(bytes);
    snapshot.dispose();
    await session.dispose();

    const other = await load({ model: folder, maxSequences: 2 });
    async function* pieces(): AsyncGenerator<Uint8Array> {
      for (let at = 0; at < bytes.length; at += 1001) yield bytes.subarray(at, at + 1001);
    }
    for (const source of [file, bytes, pieces()]) {
      const back = await other.loadSnapshot(source);
      expect(back.length).toBe(339);
      const resumed = other.createSession({ from: back });
      expect(resumed.tokens()).toEqual(Int32Array.of(...prompt, ...first.tokens));
      const again = await resumed.generate({ maxTokens: 40, temperature: 0.8, seed: 3, ignoreEos: true }).result;
      expect(again.tokens).toEqual(rest.tokens);
      expect(again.usage.cachedTokens).toBe(339);
      expect(await resumed.logits()).toEqual(logits);
      await resumed.dispose();
      back.dispose();
    }
    await other.dispose();
  });

  test('the same state gives the same bytes, whatever the device was used for before', async () => {
    const bytes = await saved();
    const noise = await reading(others);
    await noise.dispose();
    expect(await saved()).toEqual(bytes);
  });

  test('with the hash of its tokens a state goes on, and knows its prompt again', async () => {
    const bytes = await saved(prompt, { tokens: 'hash' });
    const plain = Buffer.from(prompt.buffer);
    expect(Buffer.from(bytes).includes(plain.subarray(0, 64))).toBe(false);
    const snapshot = await model.loadSnapshot(bytes);
    const session = model.createSession({ from: snapshot });
    expect(() => session.tokens()).toThrow(expect.objectContaining({ code: 'ERR_UNSUPPORTED' }));
    await session.prefill({ append: more });
    expect(await session.logits()).toEqual(await straight(more));
    // Saved again, it still has no tokens, and the new ones are under the hash too.
    const next = await session.snapshot();
    await expect(next.serialize({ tokens: 'full' })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    const twice = await model.loadSnapshot(await next.serialize());
    next.dispose();
    const whole = Int32Array.of(...prompt, ...more, ...others);
    const again = model.createSession({ from: twice });
    expect(await again.prefill({ tokens: whole })).toMatchObject({ cachedTokens: 420 });
    expect(again.tokens()).toEqual(whole);
    expect(await again.logits()).toEqual(await straight(more, others));
    twice.dispose();
    // Another text: nothing is taken for known.
    const other = Int32Array.of(...others, ...prompt);
    expect(await session.prefill({ tokens: other })).toMatchObject({ cachedTokens: 0 });
    for (const one of [session, again]) await one.dispose();
    snapshot.dispose();
  });

  test.each([
    ['bfloat16', 0.02],
    ['int8', 0.05],
  ] as const)('%s states are smaller and near', async (stateDtype, tolerance) => {
    const whole = await saved();
    const bytes = await saved(prompt, { stateDtype });
    expect(bytes.length).toBeLessThan(whole.length);
    const snapshot = await model.loadSnapshot(bytes);
    const session = model.createSession({ from: snapshot });
    await session.prefill({ append: more });
    const error = relativeError(vector(await session.logits()), vector(await straight(more)));
    expect(error).toBeGreaterThan(0);
    expect(error).toBeLessThan(tolerance);
    await session.dispose();
    snapshot.dispose();
  });

  test('one flipped byte, a truncation, or bytes behind the end never load', async () => {
    const bytes = await saved();
    const before = await used();
    const header = Buffer.from(bytes.buffer, bytes.byteOffset).readUInt32LE(12) + 48;
    const places = new Set([
      ...Array.from({ length: header }, (_, i) => i),
      ...Array.from({ length: 200 }, () => random.int(bytes.length)),
      ...Array.from({ length: 40 }, (_, i) => bytes.length - 1 - i),
    ]);
    const fails = (content: Uint8Array) =>
      expect(model.loadSnapshot(content)).rejects.toMatchObject({
        code: expect.stringMatching(/^ERR_SNAPSHOT_(CORRUPT|VERSION)$/),
        message: expect.stringMatching(/^loadSnapshot: /),
      });
    for (const at of places) {
      const changed = bytes.slice();
      changed[at]! ^= 1 << random.int(8);
      await fails(changed);
    }
    for (const length of [0, 1, 15, 16, header - 1, header, header + 1, bytes.length - 1, random.int(bytes.length)]) {
      await fails(bytes.subarray(0, length));
    }
    await fails(Buffer.concat([bytes, Uint8Array.of(0)]));
    expect(await used()).toBe(before);
  });

  test('a state of another model, weights dtype or version is refused by its code', async () => {
    const bytes = await saved();
    const later = bytes.slice();
    for (const version of [1, 3]) {
      later[8] = version;
      await expect(model.loadSnapshot(later)).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_VERSION' });
    }
    const strangers = [
      { options: { model: readGolden('qwen3_5/tied').folder }, code: 'ERR_SNAPSHOT_MODEL' },
      { options: { model: folder, dtype: 'int8' as const }, code: 'ERR_SNAPSHOT_DTYPE' },
    ];
    for (const { options, code } of strangers) {
      const stranger = await load({ ...options, maxSequences: 1 });
      await expect(stranger.loadSnapshot(bytes)).rejects.toMatchObject({ code });
      const snapshot = await model.loadSnapshot(bytes);
      expect(() => stranger.createSession({ from: snapshot })).toThrow(
        expect.objectContaining({ code: 'ERR_SNAPSHOT_MODEL' }),
      );
      snapshot.dispose();
      await stranger.dispose();
    }
  });

  test('bad sources, options and paths', async () => {
    const snapshot = await model.loadSnapshot(await saved());
    const fails = (work: Promise<unknown>, code: string) => expect(work).rejects.toMatchObject({ code });
    await fails(model.loadSnapshot(path.join(scratch, 'absent')), 'ERR_FILE');
    await fails(model.loadSnapshot(scratch), 'ERR_FILE');
    for (const source of [7, null, '', 'a\0b', [...(await saved())]]) {
      const error = await model.loadSnapshot(source as never).catch((reason: Error) => reason);
      expect(error).toMatchObject({ code: 'ERR_ARGUMENT' });
      expect((error as Error).message.length).toBeLessThan(100);
    }
    for (const file of ['', 'a\0b', 7]) await fails(snapshot.save(file as never), 'ERR_ARGUMENT');
    await fails(snapshot.serialize({ stateDtype: 'float16' as never }), 'ERR_ARGUMENT');
    await fails(snapshot.serialize({ tokens: 'none' as never }), 'ERR_ARGUMENT');
    await fails(snapshot.save(path.join(scratch, 'no', 'folder')), 'ERR_FILE');
    const reason = new Error('enough');
    const signal = AbortSignal.abort(reason);
    const file = path.join(scratch, 'kept');
    writeFileSync(file, 'kept');
    await expect(snapshot.save(file, { signal })).rejects.toBe(reason);
    await expect(model.loadSnapshot(await snapshot.serialize(), { signal })).rejects.toBe(reason);
    const nothing = { signal: AbortSignal.abort(null) };
    await expect(snapshot.save(file, nothing)).rejects.toBeNull();
    await expect(model.loadSnapshot(file, nothing)).rejects.toBeNull();
    expect(readFileSync(file, 'utf8')).toBe('kept');
    expect(readdirSync(scratch).filter((entry) => entry.endsWith('.part'))).toEqual([]);
    snapshot.dispose();
  });

  test('a source that fails passes its error on, and a save into a full limit says so', async () => {
    const bytes = await saved();
    const lost = new Error('connection lost');
    async function* broken(): AsyncGenerator<Uint8Array> {
      yield bytes.subarray(0, bytes.length / 2);
      throw lost;
    }
    const before = await used();
    await expect(model.loadSnapshot(broken())).rejects.toBe(lost);
    expect(await used()).toBe(before);
    const held = [await model.loadSnapshot(bytes), await model.loadSnapshot(bytes), await model.loadSnapshot(bytes)];
    await expect(model.loadSnapshot(bytes)).rejects.toMatchObject({ code: 'ERR_OUT_OF_MEMORY' });
    for (const one of held) one.dispose();
    expect(await used()).toBe(before);
  });

  test('a source that never answers is left when the signal comes, or when the model is disposed', async () => {
    async function* silent(): AsyncGenerator<Uint8Array> {
      yield new Uint8Array(3);
      await new Promise(() => undefined);
    }
    const reason = new Error('enough');
    const ended = new AbortController();
    const loading = model.loadSnapshot(silent(), { signal: ended.signal });
    setTimeout(() => ended.abort(reason), 10);
    await expect(loading).rejects.toBe(reason);
    const other = await load({ model: folder, maxSequences: 1 });
    const stuck = other.loadSnapshot(silent());
    stuck.catch(() => undefined);
    await other.dispose();
    await expect(stuck).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  });

  test('dispose of the model ends a save that is under way and disposes snapshots', async () => {
    const other = await load({ model: folder, maxSequences: 1 });
    const session = other.createSession();
    await session.prefill({ tokens: prompt });
    const snapshot = await session.snapshot();
    const saving = snapshot.save(path.join(scratch, 'late'));
    saving.catch(() => undefined);
    await other.dispose();
    await expect(saving).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
    await expect(snapshot.serialize()).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
    await expect(other.loadSnapshot(new Uint8Array(0))).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
    expect(readdirSync(scratch)).not.toContain('late');
  });
});
