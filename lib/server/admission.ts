// Who may work now: so many requests at once, the others in the order they came, up to so many of them.
import { ApiError, draining } from './api-error';

interface Waiting {
  readonly enter: () => void;
  readonly refuse: (reason: unknown) => void;
}

export class Admission {
  private inside = 0;
  private readonly line: Waiting[] = [];
  private closed = false;
  private readonly whenIdle: (() => void)[] = [];

  constructor(
    private readonly most: number,
    private readonly mostWaiting: number,
  ) {}

  get running(): number {
    return this.inside;
  }

  get waiting(): number {
    return this.line.length;
  }

  /**
   * Resolves when it is this request's turn, with what gives its place to the next one. Rejects with an ApiError 429 when
   * the line is full, 503 after close(), and with the signal's reason.
   */
  async enter(signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    if (this.closed) throw draining();
    if (this.inside < this.most) this.inside++;
    else await this.wait(signal);
    return () => this.leave();
  }

  /** ApiError 429 when there is no place, neither inside nor in the line. */
  checkRoom(): void {
    if (this.inside < this.most || this.line.length < this.mostWaiting) return;
    throw new ApiError(429, 'queue_full', `${this.line.length} requests are waiting already; try again later`);
  }

  private wait(signal: AbortSignal): Promise<void> {
    this.checkRoom();
    return new Promise<void>((resolve, reject) => {
      const onAbort = () => {
        this.line.splice(this.line.indexOf(waiting), 1);
        reject(signal.reason);
      };
      const waiting: Waiting = {
        enter: () => {
          signal.removeEventListener('abort', onAbort);
          resolve();
        },
        refuse: (reason) => {
          signal.removeEventListener('abort', onAbort);
          reject(reason);
        },
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.line.push(waiting);
    });
  }

  private leave(): void {
    const next = this.line.shift();
    if (next !== undefined) next.enter();
    else this.inside--;
    if (this.inside === 0) for (const idle of this.whenIdle.splice(0)) idle();
  }

  /** Nobody enters any more; those who wait are refused. */
  close(): void {
    this.closed = true;
    for (const waiting of this.line.splice(0)) waiting.refuse(draining());
  }

  /** Resolves when nobody is inside. */
  idle(): Promise<void> {
    if (this.inside === 0) return Promise.resolve();
    return new Promise((resolve) => this.whenIdle.push(resolve));
  }
}
