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
  /** 'cancelled' where the loop was left before the last token was made: the device may be a token or two ahead of it. */
  readonly finishReason: 'stop' | 'length' | 'cancelled';
  readonly usage: Usage;
}

/** Starts at once. Iterate once (leaving the loop cancels) or only await `result`. */
export interface Generation extends AsyncIterable<Chunk> {
  /** Rejects with the error or with signal.reason; never an unhandled rejection when nobody reads it. */
  readonly result: Promise<GenerateResult>;
}

/** A call of next() that waits for a token. */
interface Waiting {
  promise: Promise<IteratorResult<Chunk, undefined>>;
  resolve: (answer: IteratorResult<Chunk, undefined>) => void;
  reject: (error: unknown) => void;
}

const end = { done: true, value: undefined } as const;

export class GenerationStream implements Generation {
  readonly result: Promise<GenerateResult>;
  /** Tokens that nobody has asked for, from `at` on. */
  private chunks: Chunk[] = [];
  private at = 0;
  /** Oldest first. */
  private readonly waiting: Waiting[] = [];
  private ended = false;
  private failure: { readonly error: unknown } | undefined;
  private iterated = false;
  /** The answer to return(), and to the calls after it. */
  private leaving: Promise<IteratorResult<Chunk, undefined>> | undefined;

  /** @param cancel called when the user leaves the loop */
  constructor(
    run: (emit: (chunk: Chunk) => void) => Promise<GenerateResult>,
    private readonly cancel: () => void,
  ) {
    this.result = run((chunk) => this.emit(chunk));
    this.result.then(
      () => this.end(),
      (error: unknown) => {
        this.failure = { error };
        this.end();
      },
    );
  }

  /** A token goes to the call that waits longest. */
  private emit(value: Chunk): void {
    const call = this.waiting.shift();
    if (call !== undefined) call.resolve({ done: false, value });
    else this.chunks.push(value);
  }

  private end(): void {
    this.ended = true;
    for (const { promise, resolve, reject } of this.waiting.splice(0)) {
      if (this.failure === undefined) resolve(end);
      else {
        reject(this.failure.error);
        promise.catch(() => undefined); // a call that nobody awaits is no unhandled rejection
      }
    }
  }

  private next(): Promise<IteratorResult<Chunk, undefined>> {
    if (this.leaving !== undefined) return this.leaving;
    if (this.at < this.chunks.length) {
      const value = this.chunks[this.at++]!;
      if (this.at === this.chunks.length) {
        this.chunks = [];
        this.at = 0;
      }
      return Promise.resolve({ done: false, value });
    }
    const call = {} as Waiting;
    call.promise = new Promise((resolve, reject) => {
      call.resolve = resolve;
      call.reject = reject;
    });
    this.waiting.push(call);
    if (this.ended) this.end();
    return call.promise;
  }

  private leave(): Promise<IteratorResult<Chunk, undefined>> {
    this.cancel();
    const left = () => {
      this.chunks = [];
      return end;
    };
    this.leaving ??= this.result.then(left, left);
    return this.leaving;
  }

  [Symbol.asyncIterator](): AsyncIterator<Chunk, undefined> {
    if (this.iterated) throw linattnError('ERR_BUSY', 'generate: a generation can be iterated once');
    this.iterated = true;
    return { next: () => this.next(), return: () => this.leave() };
  }
}
