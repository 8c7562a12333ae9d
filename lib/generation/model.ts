// The public Model: network, tokenizer and scheduler of one loaded folder.
import { linattnError } from '../errors';
import type { DeviceName } from '../tensor/device';
import type { Tokenizer } from '../tokenizer/tokenizer';
import { type Generation, GenerationStream } from './generation';
import type { GenerateOptions, Input } from './input';
import type { ModelCore } from './model-core';
import { ModelSession, type Session } from './session';

export interface ModelInfo {
  readonly family: string;
  readonly device: DeviceName;
  /** Of the weights. */
  readonly dtype: string;
  readonly parameters: number;
  readonly vocabularySize: number;
  /** Of one sequence, whatever its length: recurrent states, convolution windows and sliding windows. */
  readonly stateBytes: number;
  /** Keys and values that softmax layers without a window add for each token; 0 when there are none. */
  readonly kvBytesPerToken: number;
}

export interface Model extends AsyncDisposable {
  readonly info: ModelInfo;
  /** Throws ERR_TOKENIZER when the folder has no tokenizer.json. */
  readonly tokenizer: Tokenizer;
  /** A new sequence. ERR_OUT_OF_MEMORY when maxSequences are open. */
  createSession(): Session;
  /** One request, on a session of its own. Concurrent calls are batched. */
  generate(options: Input & GenerateOptions): Generation;
  /** Aborts what runs, disposes the sessions, resolves when the device has let go. Idempotent. */
  dispose(): Promise<void>;
}

export class LoadedModel implements Model {
  private readonly sessions = new Set<ModelSession>();
  private disposing: Promise<void> | undefined;

  constructor(
    readonly info: ModelInfo,
    private readonly core: ModelCore,
    /** Frees weights and pools; resolves when the device has let go. */
    private readonly release: () => Promise<void>,
  ) {}

  get tokenizer(): Tokenizer {
    return this.core.needTokenizer('tokenizer');
  }

  createSession(): ModelSession {
    if (this.disposing !== undefined) throw linattnError('ERR_DISPOSED', 'createSession: the model was disposed');
    const session = new ModelSession(this.core, (ended) => this.sessions.delete(ended));
    this.sessions.add(session);
    return session;
  }

  generate(options: Input & GenerateOptions): Generation {
    const session = this.createSession();
    try {
      const inner = session.generate(options);
      return owning(inner, session);
    } catch (error) {
      void session.dispose();
      throw error;
    }
  }

  dispose(): Promise<void> {
    this.disposing ??= (async () => {
      await Promise.all([...this.sessions].map((session) => session.dispose()));
      await this.release();
    })();
    return this.disposing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

/** The generation, whose session ends with it. */
function owning(inner: Generation, session: ModelSession): Generation {
  const left = new AbortController();
  return new GenerationStream(
    async (emit) => {
      try {
        const iterator = inner[Symbol.asyncIterator]();
        left.signal.addEventListener('abort', () => void iterator.return?.(), { once: true });
        for (let next = await iterator.next(); !next.done; next = await iterator.next()) emit(next.value);
        return await inner.result;
      } finally {
        await session.dispose();
      }
    },
    () => left.abort(),
  );
}
