// The longest delay of the event loop while a prompt is tokenized and prefilled, beside a control run.
import { runProgram } from './programs';

interface Work {
  promptTokens: number;
  tokenizeMs: number;
  prefillMs: number;
  maxMs: number;
}

export interface Delays extends Work {
  /** Of the control run before it. */
  readonly controlMs: number;
  /** What an event loop that is not held up may take: 50 ms, or twice the control run where the machine itself is busy. */
  readonly limitMs: number;
}

/**
 * Reads a prompt of about `tokens` tokens up to three times, until the event loop was not held up; before each there is a
 * control run, with idle JavaScript and as many busy threads.
 * @param limitMs what it may take at most; by the control run when absent
 */
export async function longestDelays(tokens: number, limitMs?: number): Promise<Delays[]> {
  const all: Delays[] = [];
  while (all.length < 3 && !all.some((one) => one.maxMs < one.limitMs)) {
    const { maxMs: controlMs } = (
      await runProgram<{ maxMs: number }>('event-loop', ['idle', Math.min(3000, tokens / 20)])
    ).printed;
    const { printed } = await runProgram<Work>('event-loop', ['work', tokens]);
    all.push({ ...printed, controlMs, limitMs: limitMs ?? Math.max(50, 2 * controlMs) });
  }
  return all;
}
