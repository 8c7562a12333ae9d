// The longest delay of the event loop while a prompt is tokenized and prefilled, beside a control run.
import { runProgram } from './programs';

interface Work {
  promptTokens: number;
  tokenizeMs: number;
  prefillMs: number;
  maxMs: number;
}

/**
 * Reads a prompt of about `tokens` tokens up to three times, until the event loop was never held up for 50 ms; the
 * control run has idle JavaScript and as many busy threads.
 */
export async function longestDelays(tokens: number): Promise<{ work: Work[]; controlMs: number; best: number }> {
  const work: Work[] = [];
  const { printed: control } = await runProgram<{ maxMs: number }>('event-loop', ['idle', 3000]);
  while (work.length < 3 && !work.some(({ maxMs }) => maxMs < 50)) {
    work.push((await runProgram<Work>('event-loop', ['work', tokens])).printed);
  }
  return { work, controlMs: control.maxMs, best: Math.min(...work.map(({ maxMs }) => maxMs)) };
}
