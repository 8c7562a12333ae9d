// States of the prefix cache that are read out of the device. Sessions go first: one of them gives way to whoever needs a
// slot or pages at once, and before each of their readings they wait for states that are loaded and prompts that are read.
import { setTimeout } from 'node:timers/promises';
import { UnderWay } from '../cache/under-way';
import { linattnError } from '../errors';
import type { Checkpoint } from '../state/sequence-store';
import type { ModelCore } from './model-core';
import { snapshotChunks } from './snapshot';
import { TokenList } from './token-list';

/** How long a piece waits for prompts at most: where there is always some prompt, states leave all the same. */
const patienceMs = 200;
/** How long for states that are loaded: longer than most of them take, for one may never end, and others always come. */
const loadPatienceMs = 1000;
/** How long after a prompt states still wait: its first token comes before them, and so does who asks again at once. */
const momentMs = 5;

/** How many ms it waited for what is under way. */
async function patience(most: number, work: UnderWay): Promise<number> {
  if (work.isEmpty || most <= 0) return 0;
  const from = performance.now();
  const late = new AbortController();
  const waited = setTimeout(most, undefined, { signal: late.signal }).catch(() => undefined);
  await Promise.race([work.ended(), waited]);
  late.abort();
  return performance.now() - from;
}

export class Departures {
  private readonly prompts = new UnderWay();
  /** States on their way to the device: states that leave wait for them. */
  readonly loads = new UnderWay();
  private readonly held = new Set<{ readonly checkpoint: Checkpoint }>();

  constructor(private readonly core: ModelCore) {}

  /** Until a moment after `prompt` has been read states leave slowly. */
  after<T>(prompt: Promise<T>): Promise<T> {
    const moment = () => setTimeout(momentMs);
    this.prompts.add(prompt.then(moment, moment));
    return prompt;
  }

  /** The state of `tokens` as the pieces of a file. Throws when it gave way, or the device fails. */
  async *pieces(checkpoint: Checkpoint, tokens: Int32Array): AsyncGenerator<Uint8Array> {
    const { store } = this.core.scheduler;
    const departure = { checkpoint: store.hold(checkpoint) };
    this.held.add(departure);
    let [promptsLeft, loadsLeft] = [patienceMs, loadPatienceMs];
    const wait = async () => {
      loadsLeft -= await patience(loadsLeft, this.loads);
      promptsLeft -= await patience(promptsLeft, this.prompts);
    };
    const turn = async () => {
      await wait();
      if (!this.held.has(departure)) throw linattnError('ERR_OUT_OF_MEMORY', 'prefixCache: a state gave way');
    };
    try {
      await turn();
      const content = { checkpoint, history: TokenList.of(tokens) };
      for await (const piece of snapshotChunks(this.core, 'prefixCache', content, {}, turn)) {
        if (!this.held.has(departure)) throw linattnError('ERR_OUT_OF_MEMORY', 'prefixCache: a state gave way');
        yield piece;
        [promptsLeft, loadsLeft] = [patienceMs, loadPatienceMs];
        await wait(); // not its turn: it may have been the last piece, and the state whole
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
