// linattn generate, interrupted by signals and by an output that fails.
import { Readable } from 'node:stream';
import { Interrupts } from '../../lib/cli/signals';
import { Collector, call, fakeModel, graceMs, timed } from '../support/cli';

describe('interruption', () => {
  const never = () => new Promise<void>(() => {});
  /** Interrupts once the model has been asked for `count` texts. */
  const interruptedAfter = (count: number, texts: readonly string[]) => {
    const interrupts = new Interrupts(graceMs);
    const model = fakeModel(texts, (i) => {
      if (i < count) return undefined;
      setImmediate(() => interrupts.interrupt('SIGINT'));
      return never();
    });
    return { interrupts, model };
  };

  test('in the middle of the text: what came is flushed, the signal is raised again', async () => {
    const { interrupts, model } = interruptedAfter(1, ['Hel', 'lo']);
    const { outcome, out } = await call(['generate', '-p', 'a'], { interrupts, model });
    expect({ outcome, out }).toEqual({ outcome: { signal: 'SIGINT' }, out: 'Hel' });
    expect(model.disposed.count).toBe(1);
  });

  test.each([
    ['in the middle of the prompt', 0, '', []],
    ['in the middle of the text', 1, 'Hel', [100]],
  ])('--json is valid JSON: %s', async (_, count, text, expected) => {
    const { interrupts, model } = interruptedAfter(count, ['Hel', 'lo']);
    const { outcome, out } = await call(['generate', '-p', 'a', '--json'], { interrupts, model });
    expect(outcome).toEqual({ signal: 'SIGINT' });
    expect(JSON.parse(out)).toEqual({ text, tokens: expected, finishReason: 'cancelled', usage: timed });
  });

  test('while the model loads, and while standard input is read', async () => {
    for (const stdin of [undefined, new Readable({ read() {} })]) {
      const interrupts = new Interrupts(graceMs);
      const load = ({ signal }: { signal?: AbortSignal }) =>
        new Promise((_, reject) => signal!.addEventListener('abort', () => reject(signal!.reason)));
      setTimeout(() => interrupts.interrupt('SIGTERM'), 20);
      const { outcome, out } = await call(['generate', '--json', ...(stdin ? [] : ['-p', 'a'])], {
        interrupts,
        library: { load } as never,
        ...(stdin && { stdin, terminals: [] }),
      });
      expect(outcome).toEqual({ signal: 'SIGTERM' });
      expect(JSON.parse(out)).toEqual({ text: '', tokens: [], finishReason: 'cancelled', usage: null });
    }
  });

  test('a model that does not let go is not waited for', async () => {
    const interrupts = new Interrupts(50);
    const model = Object.assign(fakeModel([]), { dispose: never });
    model.tokenizer.encode = () => never() as Promise<never>;
    setTimeout(() => interrupts.interrupt('SIGINT'), 10);
    const { outcome, out } = await call(['generate', '-p', 'a', '--json'], { interrupts, model });
    expect(outcome).toEqual({ signal: 'SIGINT' });
    expect(JSON.parse(out).finishReason).toBe('cancelled');
  });
});

describe('standard output that fails', () => {
  class Failing extends Collector {
    constructor(private readonly code: string) {
      super();
    }
    override _write(_: Buffer, __: string, done: (error?: Error | null) => void): void {
      done(Object.assign(new Error(`write ${this.code}`), { code: this.code }));
    }
  }

  test('a closed pipe ends quietly with 0', async () => {
    const model = fakeModel(['a', 'b', 'c'], () => new Promise((resolve) => setTimeout(resolve, 10)));
    const { outcome, err } = await call(['generate', '-p', 'a'], { model, stdout: new Failing('EPIPE') });
    expect({ outcome, err }).toEqual({ outcome: { exitCode: 0 }, err: '' });
    expect(model.disposed.count).toBe(1);
  });

  test('a full disk is an error', async () => {
    const { outcome, err } = await call(['generate', '-p', 'a'], {
      model: fakeModel(['a', 'b']),
      stdout: new Failing('ENOSPC'),
    });
    expect(outcome).toEqual({ exitCode: 1 });
    expect(err).toBe('linattn: write ENOSPC (ENOSPC)\n');
  });
});
