// How a session works: one sequence, the tokens it stands for, and what reads and writes them.
import { checkOptions, linattnError } from '../errors';
import type { Checkpoint, SequenceState } from '../state/sequence-store';
import { type Chunk, type GenerateResult, type Generation, GenerationStream } from './generation';
import {
  checkPriority,
  endOf,
  type GenerateOptions,
  type Input,
  inputOf,
  type PrefillOptions,
  samplingOf,
} from './input';
import { messageEnds } from './message-ends';
import type { ModelCore } from './model-core';
import { type ReadJob, readTokens } from './read-tokens';
import type { Session, SessionOwner, SessionStart } from './session';
import { ModelSnapshot, type Snapshot } from './snapshot';
import { StopMatcher } from './stop';
import { TextOutput } from './text-output';
import { joined, TokenList } from './token-list';
import { tokensOf } from './tokens-of';
import type { PrefillUsage } from './usage';

const now = (): number => performance.now();

export class ModelSession implements Session {
  readonly sequence: SequenceState;
  private readonly history: TokenList;
  private pending: number | undefined;
  private working: Promise<unknown> | undefined;
  private readonly ended = new AbortController();
  private disposing: Promise<void> | undefined;

  constructor(
    private readonly core: ModelCore,
    start: SessionStart | undefined,
    private readonly owner: SessionOwner,
  ) {
    this.sequence = core.scheduler.store.open(start?.checkpoint);
    this.history = start?.history.copy() ?? new TokenList();
  }

  get length(): number {
    return this.history.length;
  }

  tokens(): Int32Array {
    const unknown = this.history.unknownStart;
    if (unknown > 0) {
      throw linattnError('ERR_UNSUPPORTED', `tokens: only the hash of the first ${unknown} tokens is known`);
    }
    return this.history.toArray();
  }

  /** Takes the session for one call. */
  private claim(call: string): void {
    if (this.disposing !== undefined) throw linattnError('ERR_DISPOSED', `${call}: the session was disposed`);
    if (this.working !== undefined) throw linattnError('ERR_BUSY', `${call}: the session is busy with another call`);
  }

  private async exclusive<T>(work: Promise<T>): Promise<T> {
    this.working = work;
    try {
      return await work;
    } finally {
      this.working = undefined;
    }
  }

  private signals(signal: AbortSignal | undefined, ...more: AbortSignal[]): AbortSignal {
    return AbortSignal.any([this.ended.signal, ...(signal ? [signal] : []), ...more]);
  }

  async prefill(input: Input, options: PrefillOptions = {}): Promise<PrefillUsage> {
    this.claim('prefill');
    const given = inputOf('prefill', input);
    checkOptions('prefill', options, 'onPrefillProgress');
    if (given === undefined)
      throw linattnError('ERR_ARGUMENT', 'prefill: give one of prompt, messages, tokens, append');
    checkPriority('prefill', options);
    return this.exclusive(this.read('prefill', given, this.signals(options.signal), options));
  }

  async logits(): Promise<Float32Array> {
    this.claim('logits');
    return this.exclusive(this.checkpoint('logits').then(({ logits }) => logits.read()));
  }

  async fork(): Promise<Session> {
    this.claim('fork');
    if (this.isEmpty) return this.owner.open(undefined);
    const { history, owner } = this;
    return this.exclusive(this.checkpoint('fork').then((checkpoint) => owner.open({ checkpoint, history })));
  }

  async snapshot(): Promise<Snapshot> {
    this.claim('snapshot');
    const { core, history } = this;
    const taken = this.checkpoint('snapshot').then((checkpoint) => new ModelSnapshot(core, checkpoint, history.copy()));
    return this.exclusive(taken);
  }

  private get isEmpty(): boolean {
    return this.history.length === 0 && this.pending === undefined;
  }

  /** The state of now as a checkpoint with the logits of the next token: a pending token is read first. */
  private async checkpoint(call: string): Promise<Checkpoint> {
    if (this.isEmpty) throw linattnError('ERR_ARGUMENT', `${call}: the session has read nothing yet`);
    if (this.pending !== undefined || this.sequence.logits === undefined) await this.catchUp(this.signals(undefined));
    return this.sequence.checkpoints.at(-1)!;
  }

  generate(options: (Input | object) & GenerateOptions = {}): Generation {
    this.claim('generate');
    const input = inputOf('generate', options as Partial<Record<string, unknown>>);
    const end = endOf(options);
    const sampling = samplingOf(options, this.core.generationDefaults.sampling);
    const stop = new StopMatcher(options.stop);
    if (options.stop !== undefined && this.core.tokenizer === undefined) this.core.needTokenizer('generate');
    checkPriority('generate', options);
    const left = new AbortController();
    const signal = this.signals(options.signal, left.signal);
    const run = async (emit: (chunk: Chunk) => void): Promise<GenerateResult> => {
      const started = now();
      signal.throwIfAborted();
      const read = await this.orLeft(left.signal, () =>
        input === undefined ? this.resume(signal) : this.read('generate', input, signal, options),
      );
      return this.write(emit, { ...options, ...end }, sampling, stop, signal, left.signal, read, started);
    };
    return new GenerationStream(
      (emit) => this.exclusive(run(emit)),
      () => left.abort(),
    );
  }

  /** undefined when the caller left the loop meanwhile. */
  private async orLeft<T>(left: AbortSignal, work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (left.aborted && !this.ended.signal.aborted) return undefined;
      throw error;
    }
  }

  /** Goes on from the state: nothing to read but the pending token. */
  private async resume(signal: AbortSignal): Promise<PrefillUsage> {
    const start = now();
    const cachedTokens = this.history.length;
    if (this.isEmpty) {
      throw linattnError(
        'ERR_ARGUMENT',
        'generate: the session has read nothing yet: give prompt, messages, tokens or append',
      );
    }
    if (this.pending !== undefined || this.sequence.logits === undefined) await this.catchUp(signal);
    return { promptTokens: this.history.length, cachedTokens, tokenizeMs: 0, prefillMs: now() - start };
  }

  /** Reads the pending token, or where the logits are gone the tokens after the last checkpoint. */
  private async catchUp(signal: AbortSignal): Promise<void> {
    await this.readTokens(this.withPending(), signal, {}, undefined);
  }

  private withPending(): Int32Array {
    const held = this.history.toArray();
    return this.pending === undefined ? held : joined(held, Int32Array.of(this.pending));
  }

  /** Makes the state stand for the whole input, with the logits of the next token. */
  private async read(call: string, input: Input, signal: AbortSignal, options: PrefillOptions): Promise<PrefillUsage> {
    const start = now();
    const target = await tokensOf(this.core, call, input, this.withPending(), signal);
    if (target.length === 0) throw linattnError('ERR_ARGUMENT', `${call}: there are no tokens to read`);
    const ends = async (from: number) =>
      'messages' in input ? messageEnds(this.core, input.messages, target, from, signal) : [];
    const tokenized = now();
    const cachedTokens = await this.readTokens(target, signal, options, ends);
    return { promptTokens: target.length, cachedTokens, tokenizeMs: tokenized - start, prefillMs: now() - tokenized };
  }

  private readTokens(
    target: Int32Array,
    signal: AbortSignal,
    options: PrefillOptions,
    ends: ReadJob['ends'],
  ): Promise<number> {
    const { sequence, history } = this;
    const onMoved = () => {
      this.pending = undefined;
    };
    const { priority = 0, onPrefillProgress: onProgress } = options;
    return readTokens(this.core, { sequence, history, target, priority, signal, onProgress, ends, onMoved });
  }

  /** Samples tokens until something says stop. */
  private async write(
    emit: (chunk: Chunk) => void,
    options: ReturnType<typeof endOf> & GenerateOptions,
    sampling: ReturnType<typeof samplingOf>,
    stop: StopMatcher,
    signal: AbortSignal,
    left: AbortSignal,
    read: PrefillUsage | undefined,
    started: number,
  ): Promise<GenerateResult> {
    const { scheduler, tokenizer, generationDefaults } = this.core;
    const { store } = scheduler;
    const { sequence } = this;
    const { maxTokens } = options;
    const stopIds = options.ignoreEos ? [] : generationDefaults.stopIds;
    const text = new TextOutput(tokenizer, stop);
    const tokens: number[] = [];
    let firstAt = 0;
    let hasLeft = left.aborted;
    left.addEventListener(
      'abort',
      () => {
        hasLeft = true;
      },
      { once: true },
    );
    let finishReason: GenerateResult['finishReason'] = 'length';
    const accept = (token: number, logprob: number): boolean => {
      tokens.push(token);
      if (tokens.length === 1) firstAt = now();
      const isStop = stopIds.includes(token);
      const done = isStop || tokens.length >= maxTokens;
      const shown = text.push(token, isStop, done);
      if (isStop || text.stopped) finishReason = 'stop';
      emit({ text: shown, token, logprob });
      if (hasLeft && !done && !text.stopped) {
        finishReason = 'cancelled';
        return false;
      }
      return !done && !text.stopped;
    };
    if (read !== undefined && maxTokens > 0) {
      store.sampling.set(sequence.slot, sampling);
      store.setStopIds(sequence, stopIds);
      store.setRow(sequence, 'live', 1, maxTokens);
      if ((sampling.repetitionPenalty ?? 1) !== 1) store.sampling.setSeen(sequence.slot, this.history.known());
      const before = this.history.length;
      const [token, logprob] = await scheduler.first(sequence);
      this.pending = token;
      try {
        if (accept(token, logprob)) await scheduler.decode({ sequence, signal, accept });
      } catch (error) {
        if (!left.aborted || this.ended.signal.aborted || options.signal?.aborted) throw error;
        finishReason = 'cancelled';
      } finally {
        await this.settle(before, tokens);
      }
    } else if (read === undefined) {
      finishReason = 'cancelled';
    }
    const end = now();
    const decodeMs = tokens.length > 0 ? end - firstAt : 0;
    const usage = {
      ...(read ?? { promptTokens: this.history.length, cachedTokens: 0, tokenizeMs: 0, prefillMs: end - started }),
      completionTokens: tokens.length,
      decodeMs,
      timeToFirstTokenMs: tokens.length > 0 ? firstAt - started : 0,
      tokensPerSecond: tokens.length > 1 && decodeMs > 0 ? ((tokens.length - 1) * 1000) / decodeMs : 0,
      ...this.core.bytesOf(sequence),
    };
    return { text: text.all, tokens: Int32Array.from(tokens), finishReason, usage };
  }

  /** After a generation: the device says how many of its tokens count; the one after them is pending. */
  private async settle(before: number, tokens: readonly number[]): Promise<void> {
    const { length } = await this.core.scheduler.store.readRow(this.sequence);
    const consumed = length - before;
    this.sequence.length = length;
    this.history.push(tokens.slice(0, consumed));
    this.pending = tokens[consumed];
  }

  dispose(): Promise<void> {
    this.disposing ??= (async () => {
      this.ended.abort(linattnError('ERR_DISPOSED', 'the session was disposed'));
      await this.working?.catch(() => undefined);
      this.core.scheduler.store.close(this.sequence);
      this.owner.ended();
    })();
    return this.disposing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}
