// Server-sent events over a response: https://html.spec.whatwg.org/multipage/server-sent-events.html
import type { ServerResponse } from 'node:http';

/** The least time between two notes of progress. */
const noteMs = 100;

export class EventStream {
  private notedAt = Number.NEGATIVE_INFINITY;

  constructor(private readonly response: ServerResponse) {
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      'x-accel-buffering': 'no', // nginx passes events on as they come
    });
    response.flushHeaders();
  }

  send(data: object | '[DONE]'): void {
    this.response.write(`data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`);
  }

  /** A comment, which clients of events do not see; not more often than every 100 ms, but for the last one. */
  note(data: object, isLast: boolean): void {
    const now = performance.now();
    if (now - this.notedAt < noteMs && !isLast) return;
    this.notedAt = now;
    this.response.write(`: ${JSON.stringify(data)}\n\n`);
  }

  end(): void {
    this.response.end();
  }
}
