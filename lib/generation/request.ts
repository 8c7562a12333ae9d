// One call of model.generate: a request that waits for a sequence, reads and writes on a session of its own, and is gone.
import { linattnError } from '../errors';
import { type Chunk, type GenerateResult, type Generation, GenerationStream } from './generation';
import { checkPriority, endOf, type GenerateOptions, type Input, inputOf, samplingOf } from './input';
import type { ModelCore } from './model-core';
import type { ModelSession } from './model-session';
import { StopMatcher } from './stop';
import { tokensOf } from './tokens-of';

type RequestOptions = Input & GenerateOptions;

/** In place of the text that the tokens came from. */
const noInput = { prompt: undefined, messages: undefined, append: undefined };

const now = (): number => performance.now();

/**
 * Starts as soon as there is a sequence for it.
 * @param open makes the session
 * @throws LinattnError ERR_ARGUMENT; ERR_QUEUE_FULL when as many requests wait as may
 */
export function request(core: ModelCore, open: () => ModelSession, options: RequestOptions): Generation {
  const input = inputOf('generate', options);
  if (input === undefined) {
    throw linattnError('ERR_ARGUMENT', 'generate: give one of prompt, messages, tokens, append');
  }
  const { maxTokens } = endOf(options);
  samplingOf(options, core.generationDefaults.sampling);
  new StopMatcher(options.stop);
  checkPriority('generate', options);
  const place = core.admission.takePlace();
  const left = new AbortController();
  const run = async (emit: (chunk: Chunk) => void): Promise<GenerateResult> => {
    const started = now();
    let tokenizeMs = 0;
    const wait = async (signal: AbortSignal) => {
      const tokens = await tokensOf(core, 'generate', input, new Int32Array(0), signal);
      if (tokens.length === 0) throw linattnError('ERR_ARGUMENT', 'generate: there are no tokens to read');
      tokenizeMs = now() - started;
      const need = { promptTokens: tokens.length, maxTokens, priority: options.priority ?? 0 };
      return { tokens, ...(await core.admission.admit(place, need, signal, open)) };
    };
    const signals = AbortSignal.any([left.signal, ...(options.signal ? [options.signal] : [])]);
    const admitted = await core
      .during(signals, wait)
      .catch((error: unknown) => {
        if (!left.signal.aborted || options.signal?.aborted) throw error;
        return undefined;
      })
      .finally(() => place.leave());
    if (admitted === undefined) return nothing(tokenizeMs);
    const { opened: session, tokens, release } = admitted;
    try {
      const waitedMs = now() - started;
      const inner = session.generate({ ...options, ...noInput, tokens } as { tokens: Int32Array } & GenerateOptions);
      const iterator = inner[Symbol.asyncIterator]();
      const leave = () => void iterator.return?.();
      if (left.signal.aborted) leave();
      left.signal.addEventListener('abort', leave, { once: true });
      for (let next = await iterator.next(); !next.done; next = await iterator.next()) emit(next.value);
      const { usage, ...result } = await inner.result;
      const { completionTokens, timeToFirstTokenMs } = usage;
      const toFirst = completionTokens > 0 ? timeToFirstTokenMs + waitedMs : 0;
      return { ...result, usage: { ...usage, tokenizeMs, timeToFirstTokenMs: toFirst } };
    } finally {
      await session.dispose();
      release();
    }
  };
  return new GenerationStream(run, () => left.abort());
}

/** Of a request whose caller left before it was let in. */
function nothing(tokenizeMs: number): GenerateResult {
  const counts = { promptTokens: 0, cachedTokens: 0, completionTokens: 0, stateBytes: 0, kvBytes: 0 };
  const times = { tokenizeMs, prefillMs: 0, decodeMs: 0, timeToFirstTokenMs: 0, tokensPerSecond: 0 };
  return { text: '', tokens: new Int32Array(0), finishReason: 'cancelled', usage: { ...counts, ...times } };
}
