// Requests at work: each waits for its turn, ends when its client goes away, and at last when the server does.
import type { ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import type { Admission } from './admission';
import { clientGone, draining } from './api-error';

export class Work {
  private readonly running = new Set<AbortController>();

  constructor(readonly admission: Admission) {}

  /**
   * The job's result, once it is this request's turn. Its signal aborts with an ApiError: 499 when the connection of
   * `response` closes before the response has left, 503 when a drain runs out of time.
   */
  async run<T>(response: ServerResponse, job: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const abort = new AbortController();
    const onClose = () => {
      if (!response.writableFinished) abort.abort(clientGone());
    };
    if (response.destroyed) onClose();
    response.once('close', onClose);
    this.running.add(abort);
    try {
      const leave = await this.admission.enter(abort.signal);
      try {
        return await job(abort.signal);
      } finally {
        leave();
      }
    } finally {
      this.running.delete(abort);
      response.off('close', onClose);
    }
  }

  /** Refuses what waits and what comes; resolves when what runs has ended, which is aborted after `limitMs`. */
  async drain(limitMs: number): Promise<void> {
    this.admission.close();
    const idle = this.admission.idle();
    const timer = new AbortController();
    const late = delay(limitMs, undefined, { signal: timer.signal }).then(
      () => {
        for (const abort of this.running) abort.abort(draining());
      },
      () => undefined,
    );
    await Promise.race([idle, late]);
    timer.abort();
    await idle;
  }
}
