// SIGINT and SIGTERM: the first asks the command to end (what it has is flushed, then the signal is raised again, so
// that the shell sees it), a second one ends the process at once.

type Signal = 'SIGINT' | 'SIGTERM';
interface Emitter {
  on(event: Signal, listener: () => void): unknown;
  off(event: Signal, listener: () => void): unknown;
}

// A command that was asked to end gets this long: within a second the shell has its prompt back.
const graceMs = 700;

export class Interrupts {
  readonly #abort = new AbortController();
  readonly #graceMs: number;
  #signal: Signal | undefined;

  constructor(grace = graceMs) {
    this.#graceMs = grace;
  }

  /** Aborts when the command is to end. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** The signal that asked for it. */
  get received(): Signal | undefined {
    return this.#signal;
  }

  /** Listens until the function that it returns is called. `raise` ends the process by a signal. */
  listen(source: Emitter, raise: (signal: Signal) => void): () => void {
    const listeners = (['SIGINT', 'SIGTERM'] as const).map((name) => {
      const listener = () => {
        if (this.#abort.signal.aborted) {
          stop();
          raise(name);
          return;
        }
        this.interrupt(name);
      };
      source.on(name, listener);
      return () => source.off(name, listener);
    });
    const stop = () => {
      for (const off of listeners) off();
    };
    return stop;
  }

  interrupt(signal: Signal): void {
    this.#signal ??= signal;
    this.end(new Error(`interrupted by ${signal}`));
  }

  /** Asks the command to end for another reason. */
  end(reason: Error): void {
    this.#abort.abort(reason);
  }

  /** The value of work, or undefined when the command was interrupted and work did not end in time. */
  async orGiveUp<T>(work: Promise<T>): Promise<T | undefined> {
    let timer: NodeJS.Timeout | undefined;
    let onAbort = () => {};
    const givenUp = new Promise<undefined>((resolve) => {
      onAbort = () => {
        timer = setTimeout(() => resolve(undefined), this.#graceMs);
      };
      if (this.signal.aborted) onAbort();
      else this.signal.addEventListener('abort', onAbort, { once: true });
    });
    work.catch(() => {}); // given up or not, its failure is read below or not at all
    try {
      return await Promise.race([work, givenUp]);
    } finally {
      clearTimeout(timer);
      this.signal.removeEventListener('abort', onAbort);
    }
  }
}
