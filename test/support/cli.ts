// Runs a command of the command line without a process: streams that collect, and a model that says what it is told.
import { Readable, Writable } from 'node:stream';
import type { Context, Library } from '../../lib/cli/context';
import { type Outcome, run } from '../../lib/cli/run';
import { Interrupts } from '../../lib/cli/signals';
import { LinattnError } from '../../lib/errors';
import type { Chunk, GenerateOptions, GenerateResult, Input, LoadOptions, Model, Usage } from '../../lib/index';

/** What a command has time for after an interruption, where it is not to be given up, on the slowest machine. */
export const graceMs = 30_000;

export class Collector extends Writable {
  text = '';
  constructor(readonly isTTY = false) {
    super();
  }
  override _write(chunk: Buffer, _: string, done: (error?: Error | null) => void): void {
    this.text += chunk.toString();
    done();
  }
}

export const usage: Usage = {
  ...{ promptTokens: 7, cachedTokens: 2, completionTokens: 2, tokenizeMs: 1, prefillMs: 10, decodeMs: 4 },
  ...{ timeToFirstTokenMs: 11, tokensPerSecond: 250, stateBytes: 18 * 2 ** 20, kvBytes: 0 },
};

/** The same with any times where the command adds its own. */
export const timed = { ...usage, tokenizeMs: expect.any(Number), timeToFirstTokenMs: expect.any(Number) };

export interface FakeModel extends Model {
  readonly loaded: LoadOptions[];
  readonly asked: (Input & GenerateOptions)[];
  /** Files that states were saved to. */
  readonly saved: string[];
  readonly disposed: { count: number };
}

/**
 * A model whose answer is `texts`; `wait` runs before each of them and before the first one is asked for. Leaving the
 * loop ends the answer as 'cancelled', as it does in a real one.
 */
export function fakeModel(texts: readonly string[], wait: (i: number) => Promise<void> | void = () => {}): FakeModel {
  const asked: (Input & GenerateOptions)[] = [];
  const saved: string[] = [];
  const disposed = { count: 0 };
  const generate = (options: Input & GenerateOptions) => {
    asked.push(options);
    const chunks = texts.slice(0, options.maxTokens).map((text, i): Chunk => ({ text, token: 100 + i, logprob: -i }));
    const sent: Chunk[] = [];
    let leave = () => {};
    const left = new Promise<'left'>((resolve) => {
      leave = () => resolve('left');
    });
    let settle: (result: GenerateResult) => void = () => {};
    let fail: (error: unknown) => void = () => {};
    const result = new Promise<GenerateResult>((resolve, reject) => {
      settle = resolve;
      fail = reject;
    });
    result.catch(() => {});
    const finish = (finishReason: GenerateResult['finishReason']) => {
      const tokens = Int32Array.from(sent, ({ token }) => token);
      settle({ text: sent.map(({ text }) => text).join(''), tokens, finishReason, usage });
      return { done: true, value: undefined } as const;
    };
    return {
      result,
      [Symbol.asyncIterator]: () => ({
        async next() {
          try {
            if (sent.length === 0) options.onPrefillProgress?.({ done: 7, total: 7, cached: 2 });
            if ((await Promise.race([wait(sent.length), left])) === 'left') return finish('cancelled');
          } catch (error) {
            fail(error);
            throw error;
          }
          const chunk = chunks[sent.length];
          if (!chunk) return finish('length');
          sent.push(chunk);
          return { done: false, value: chunk } as const;
        },
        async return() {
          leave();
          await result;
          return { done: true, value: undefined } as const;
        },
      }),
    };
  };
  const model = {
    info: {
      ...{ family: 'fake', device: 'cpu', dtype: 'float32', parameters: 1234567, vocabularySize: 1000 },
      ...{ stateBytes: 3 * 2 ** 20, kvBytesPerToken: 0 },
    },
    tokenizer: {
      encode: async (
        text: string,
        options: { onProgress?: (progress: { done: number; total: number }) => void } = {},
      ) => {
        options.onProgress?.({ done: text.length, total: text.length });
        return Int32Array.from(text, (char) => char.codePointAt(0)!);
      },
      decode: (tokens: ArrayLike<number>) => String.fromCodePoint(...Array.from(tokens)),
      applyChatTemplate(messages: readonly { role: string; content: string }[]) {
        return messages.map(({ role, content }) => `<${role}>${content}`).join('');
      },
    },
    createSession: ({ from }: { from?: string } = {}) => ({
      generate,
      tokens: () => Int32Array.from(`read from ${from}`, (char) => char.codePointAt(0)!),
      snapshot: async () => ({ save: async (file: string) => void saved.push(file) }),
    }),
    loadSnapshot: async (file: string) => file,
    generate,
    dispose: async () => {
      disposed.count++;
    },
  };
  return Object.assign(model, { asked, saved, disposed, loaded: [] }) as unknown as FakeModel;
}

export interface Ran {
  readonly outcome: Outcome;
  readonly out: string;
  readonly err: string;
}

export interface CallOptions {
  readonly model?: FakeModel;
  readonly stdin?: string | Uint8Array | Readable;
  /** Where the streams are terminals. */
  readonly terminals?: readonly ('stdin' | 'stdout' | 'stderr')[];
  readonly interrupts?: Interrupts;
  readonly library?: Partial<Library>;
  readonly stdout?: Writable & { text: string };
  readonly env?: Record<string, string>;
}

export async function call(args: readonly string[], options: CallOptions = {}): Promise<Ran> {
  const terminals = options.terminals ?? ['stdin'];
  const input = options.stdin ?? '';
  const stdin = input instanceof Readable ? input : Readable.from([Buffer.from(input as string)]);
  const stdout = options.stdout ?? new Collector(terminals.includes('stdout'));
  const stderr = new Collector(terminals.includes('stderr'));
  const library = {
    load: async (loadOptions: LoadOptions) => {
      options.model?.loaded.push(loadOptions);
      if (!options.model) throw new LinattnError('ERR_FILE', 'load: no such model');
      return options.model;
    },
    ...options.library,
  } as unknown as Library;
  const context: Context = {
    ...{ stdin: Object.assign(stdin, { isTTY: terminals.includes('stdin') }), stdout, stderr, env: options.env ?? {} },
    interrupts: options.interrupts ?? new Interrupts(graceMs),
    library: () => library,
  };
  const outcome = await run(args, context);
  return { outcome, out: stdout.text, err: stderr.text };
}
