// The public Model: network, tokenizer and scheduler of one loaded folder.
import { checkOptions, linattnError } from '../errors';
import type { DeviceName } from '../tensor/device';
import type { Tokenizer } from '../tokenizer/tokenizer';
import { type EmbedInput, embed } from './embed';
import type { Generation } from './generation';
import type { GenerateOptions, Input } from './input';
import { loadSnapshot, type SnapshotSource } from './load-snapshot';
import type { ModelCore } from './model-core';
import { ModelSession } from './model-session';
import type { PrefixCacheStats } from './prefix-cache-stats';
import { request } from './request';
import type { Session, SessionStart } from './session';
import { ModelSnapshot, type Snapshot } from './snapshot';

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
  /** What the prefix cache did and holds at this moment; undefined where `load` was not asked for one. */
  readonly prefixCache: PrefixCacheStats | undefined;
  /** A new sequence, empty or at a snapshot of this model. ERR_OUT_OF_MEMORY when maxSequences are open. */
  createSession(options?: { from?: Snapshot }): Session;
  /**
   * One request, on a session of its own. Concurrent calls are batched; while all sequences are in use, or the key-value
   * pages that it may need, it waits: by priority, then in the order of the calls.
   * @throws LinattnError ERR_ARGUMENT; ERR_QUEUE_FULL when scheduling.maxQueued requests wait
   */
  generate(options: Input & GenerateOptions): Generation;
  /**
   * The mean of the last hidden states (after the final norm) over the tokens of a text, divided by its Euclidean norm:
   * [C] of the model's width. Read on a sequence of its own.
   * @throws LinattnError ERR_ARGUMENT, ERR_TOKENIZER, ERR_OUT_OF_MEMORY; signal.reason
   */
  embed(input: EmbedInput, options?: { signal?: AbortSignal }): Promise<Float32Array>;
  /**
   * Reads what `snapshot.save` or `serialize` made, here or in another process, by the same model: config and weights.
   * @throws LinattnError ERR_SNAPSHOT_CORRUPT, ERR_SNAPSHOT_VERSION, ERR_SNAPSHOT_MODEL, ERR_SNAPSHOT_DTYPE, ERR_FILE,
   *   ERR_OUT_OF_MEMORY; signal.reason
   */
  loadSnapshot(source: SnapshotSource, options?: { signal?: AbortSignal }): Promise<Snapshot>;
  /** Aborts what runs, disposes the sessions and snapshots, resolves when the device has let go. Idempotent. */
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

  get prefixCache(): PrefixCacheStats | undefined {
    return this.core.prefixCache?.stats;
  }

  createSession(options: { from?: Snapshot } = {}): ModelSession {
    this.checkUsable('createSession');
    checkOptions('createSession', options);
    const { from } = options;
    if (from !== undefined && !(from instanceof ModelSnapshot && from.core === this.core)) {
      throw linattnError('ERR_SNAPSHOT_MODEL', 'createSession: from must be a snapshot of this model');
    }
    return this.open(from?.content('createSession'));
  }

  private open(start: SessionStart | undefined): ModelSession {
    const session = new ModelSession(this.core, start, {
      open: (other) => this.open(other),
      ended: () => this.sessions.delete(session),
    });
    this.sessions.add(session);
    return session;
  }

  private checkUsable(call: string): void {
    if (this.disposing !== undefined) throw linattnError('ERR_DISPOSED', `${call}: the model was disposed`);
  }

  async loadSnapshot(source: SnapshotSource, options: { signal?: AbortSignal } = {}): Promise<Snapshot> {
    this.checkUsable('loadSnapshot');
    checkOptions('loadSnapshot', options);
    return this.core.during(options.signal, (either) => loadSnapshot(this.core, source, either));
  }

  async embed(input: EmbedInput, options: { signal?: AbortSignal } = {}): Promise<Float32Array> {
    this.checkUsable('embed');
    checkOptions('embed', options);
    return this.core.during(options.signal, (either) => embed(this.core, input, either));
  }

  generate(options: Input & GenerateOptions): Generation {
    this.checkUsable('generate');
    return request(this.core, () => this.createSession(), options);
  }

  dispose(): Promise<void> {
    this.disposing ??= (async () => {
      this.core.stop();
      await Promise.all([...this.sessions].map((session) => session.dispose()));
      await this.core.end();
      await this.release();
    })();
    return this.disposing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}
