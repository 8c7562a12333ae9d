// A generation as its user sees it: tokens to iterate over as they come, and one result. Either may be ignored.
import { linattnError } from '../errors';
import type { Usage } from './usage';

/** One token. All texts joined are `result.text`; one is empty while a character or a stop string is incomplete. */
export interface Chunk {
  readonly text: string;
  readonly token: number;
  /** Natural logarithm of its probability under the unmodified distribution. */
  readonly logprob: number;
}

export interface GenerateResult {
  readonly text: string;
  readonly tokens: Int32Array;
  readonly finishReason: 'stop' | 'length' | 'cancelled';
  readonly usage: Usage;
}

/** Starts at once. Iterate once (leaving the loop cancels) or only await `result`. */
export interface Generation extends AsyncIterable<Chunk> {
  /** Rejects with the error or with signal.reason; never an unhandled rejection when nobody reads it. */
  readonly result: Promise<GenerateResult>;
}

export class GenerationStream implements Generation {
  readonly result: Promise<GenerateResult>;
  private readonly chunks: Chunk[] = [];
  private ended = false;
  private failure: { readonly error: unknown } | undefined;
  private wake: (() => void) | undefined;
  private iterated = false;

  /** @param cancel called when the user leaves the loop */
  constructor(
    run: (emit: (chunk: Chunk) => void) => Promise<GenerateResult>,
    private readonly cancel: () => void,
  ) {
    this.result = run((chunk) => {
      this.chunks.push(chunk);
      this.wake?.();
    });
    this.result.then(
      () => this.end(),
      (error: unknown) => {
        this.failure = { error };
        this.end();
      },
    );
  }

  private end(): void {
    this.ended = true;
    this.wake?.();
  }

  [Symbol.asyncIterator](): AsyncIterator<Chunk, undefined> {
    if (this.iterated) throw linattnError('ERR_BUSY', 'generate: a generation can be iterated once');
    this.iterated = true;
    let at = 0;
    const next = async (): Promise<IteratorResult<Chunk, undefined>> => {
      while (at >= this.chunks.length && !this.ended) {
        await new Promise<void>((resolve) => {
          this.wake = resolve;
        });
      }
      const chunk = this.chunks[at++];
      if (chunk !== undefined) return { done: false, value: chunk };
      if (this.failure !== undefined) throw this.failure.error;
      return { done: true, value: undefined };
    };
    const leave = async (): Promise<IteratorResult<Chunk, undefined>> => {
      await this.result.catch(() => undefined);
      at = this.chunks.length;
      this.failure = undefined;
      return { done: true, value: undefined };
    };
    // Calls that do not wait for each other are answered in their order.
    let last: Promise<unknown> = Promise.resolve();
    const inTurn = <T>(answer: () => Promise<T>): Promise<T> => {
      const own = last.then(answer);
      last = own.catch(() => undefined);
      return own;
    };
    return {
      next: () => inTurn(next),
      return: () => {
        this.cancel();
        return inTurn(leave);
      },
    };
  }
}
