// Sessions that clients keep between requests, by id; each is one sequence of the model.
import { randomUUID } from 'node:crypto';
import type { Model, Session } from '../index';
import { ApiError } from './api-error';

interface Held {
  readonly session: Session;
  readonly created: number;
  usedAt: number;
  inUse: boolean;
}

/** A session as clients see it. */
export interface SessionObject {
  readonly id: string;
  readonly object: 'session';
  /** Seconds since 1970. */
  readonly created: number;
  /** That its state stands for. */
  readonly tokens: number;
}

export class Sessions {
  private readonly held = new Map<string, Held>();
  /** Places of sessions that are being made. */
  private coming = 0;
  private readonly timer: NodeJS.Timeout;

  constructor(
    readonly model: Model,
    private readonly most: number,
    private readonly ttlMs: number,
  ) {
    this.timer = setInterval(() => this.dropUnused(), Math.max(100, Math.min(ttlMs / 4, 60_000)));
    this.timer.unref();
  }

  get size(): number {
    return this.held.size;
  }

  /**
   * Holds the session that `make` makes, unless nobody is there any more to be told its id: the reason of `signal`.
   * ApiError 429 when maxSessions are held.
   */
  async add(make: () => Session | Promise<Session>, signal?: AbortSignal): Promise<SessionObject> {
    if (this.held.size + this.coming >= this.most) {
      throw new ApiError(429, 'too_many_sessions', `${this.most} sessions are held already; delete one`);
    }
    this.coming++;
    try {
      const session = await make();
      if (signal?.aborted) {
        await session.dispose();
        throw signal.reason;
      }
      const id = `sess_${randomUUID()}`;
      this.held.set(id, { session, created: Math.floor(Date.now() / 1000), usedAt: performance.now(), inUse: false });
      return this.describe(id);
    } finally {
      this.coming--;
    }
  }

  /** ApiError 404 when there is none of this id. */
  describe(id: string): SessionObject {
    const { session, created } = this.find(id);
    return { id, object: 'session', created, tokens: session.length };
  }

  /** Runs `job` with the session, which nobody else may use meanwhile: ApiError 409. */
  async use<T>(id: string, job: (session: Session) => Promise<T>): Promise<T> {
    const held = this.find(id);
    if (held.inUse) throw new ApiError(409, 'session_busy', `another request uses session ${id}`);
    held.inUse = true;
    try {
      return await job(held.session);
    } finally {
      held.inUse = false;
      held.usedAt = performance.now();
    }
  }

  /** What uses it is aborted. */
  async delete(id: string): Promise<void> {
    const { session } = this.find(id);
    this.held.delete(id);
    await session.dispose();
  }

  private find(id: string): Held {
    const held = this.held.get(id);
    if (held === undefined) throw new ApiError(404, 'session_not_found', `there is no session ${id}`);
    return held;
  }

  private dropUnused(): void {
    const now = performance.now();
    for (const [id, { inUse, usedAt }] of this.held) if (!inUse && now - usedAt > this.ttlMs) void this.delete(id);
  }

  async dispose(): Promise<void> {
    clearInterval(this.timer);
    await Promise.all([...this.held.keys()].map((id) => this.delete(id)));
  }
}
