// What the prefix cache is for: the second question about a long document, in this process and in the next one.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { runProgram } from '../support/programs';
import { describeWithRedis, startRedis } from '../support/redis-server';

interface Answer {
  ms: number;
  cachedTokens: number;
  promptTokens: number;
  tokens: number[];
}

const ask = async (place: string, ...questions: string[]) =>
  (await runProgram<Answer[]>('ask-cached', [place, 100_000, ...questions])).printed;

/** What each question was answered, wherever its text was read. */
const answers = new Map<string, number[]>();

/** Two questions, and after a restart a new one and the first again. */
async function askTwiceAndAgain(place: string, questions: readonly [string, string, string]): Promise<void> {
  const [first, second] = (await ask(place, questions[0], questions[1])) as [Answer, Answer];
  const [third, again] = (await ask(place, questions[2], questions[0])) as [Answer, Answer];
  const share = (answer: Answer) => `${((answer.ms / first.ms) * 100).toFixed(2)} %`;
  console.info({ place, firstMs: first.ms, second: share(second), restarted: share(third), again: share(again) });
  expect(first.cachedTokens).toBe(0);
  expect(second.ms).toBeLessThan(0.02 * first.ms);
  expect(third.ms).toBeLessThan(0.05 * first.ms);
  for (const answer of [second, third, again]) {
    expect(answer.promptTokens - answer.cachedTokens).toBeLessThan(300);
  }
  expect(again.tokens).toEqual(first.tokens);
  for (const [i, { tokens }] of [first, second, third].entries()) {
    expect(tokens).toEqual(answers.get(questions[i]!) ?? tokens);
    answers.set(questions[i]!, tokens);
  }
}

const [captain, anne, walter] = ['\n\nCaptain Wentworth', '\n\nIn the end Anne', '\n\nSir Walter was'] as const;

test('a second question on 100,000 tokens, with a directory: under 2 % of the first, after a restart under 5 %', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'linattn-cache-'));
  await askTwiceAndAgain(folder, [captain, anne, walter]);
  rmSync(folder, { recursive: true });
});

describeWithRedis('with Redis', () => {
  // The questions in another order: what came after a restart is now read from the start, and the same.
  test('the same', async () => {
    const server = await startRedis();
    await askTwiceAndAgain(server.socket, [walter, captain, anne]).finally(() => server.stop());
  });
});
