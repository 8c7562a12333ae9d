// States of the prefix cache that are read out of the device. Sessions go first: one of them gives way to whoever needs a
// slot or pages at once, and before each of their pieces they wait for prompts that are read.
import { setTimeout } from 'node:timers/promises';
import { linattnError } from '../errors';
import type { Checkpoint } from '../state/sequence-store';
import type { ModelCore } from './model-core';
import { snapshotChunks } from './snapshot';
import { TokenList } from './token-list';

/** The longest wait of a piece: where there is always some prompt, states leave all the same. */
const patienceMs = 200;

export class Departures {
  private readonly prompts = new Set<Promise<unknown>>();
  private readonly held = new Set<{ readonly checkpoint: Checkpoint }>();

  constructor(private readonly core: ModelCore) {}

  /** Until `prompt` has been read, states leave slowly. */
  async after<T>(prompt: Promise<T>): Promise<T> {
    this.prompts.add(prompt);
    try {
      return await prompt;
    } finally {
      this.prompts.delete(prompt);
    }
  }

  private async patience(): Promise<void> {
    if (this.prompts.size === 0) return;
    const late = new AbortController();
    const waited = setTimeout(patienceMs, undefined, { signal: late.signal }).catch(() => undefined);
    await Promise.race([Promise.allSettled(this.prompts), waited]);
    late.abort();
  }

  /** The state of `tokens` as the pieces of a file. Throws when it gave way, or the device fails. */
  async *pieces(checkpoint: Checkpoint, tokens: Int32Array): AsyncGenerator<Uint8Array> {
    const { store } = this.core.scheduler;
    const departure = { checkpoint: store.hold(checkpoint) };
    this.held.add(departure);
    const turn = async () => {
      await this.patience();
      if (!this.held.has(departure)) throw linattnError('ERR_OUT_OF_MEMORY', 'prefixCache: a state gave way');
    };
    try {
      await turn();
      const content = { checkpoint, history: TokenList.of(tokens) };
      for await (const piece of snapshotChunks(this.core, 'prefixCache', content, {})) {
        if (!this.held.has(departure)) throw linattnError('ERR_OUT_OF_MEMORY', 'prefixCache: a state gave way');
        yield piece;
        await turn();
      }
    } finally {
      if (this.held.delete(departure)) store.release(checkpoint);
    }
  }

  /** Lets go of the oldest one; false when there is none. */
  giveWay(): boolean {
    const [departure] = this.held;
    if (departure === undefined) return false;
    this.held.delete(departure);
    this.core.scheduler.store.release(departure.checkpoint);
    return true;
  }
}
