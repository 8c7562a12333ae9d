// Memory does not grow with the prompt: 500,000 tokens against 5,000, each read by a process of its own.
import { runProgram } from '../support/programs';

interface Held {
  promptTokens: number;
  seconds: number;
  used: number;
  peak: number;
  resident: number;
}

const MiB = 2 ** 20;

test.each([
  ['token ids', 'tokens', []],
  ['text, after the tokenizer', 'text', ['--expose-gc']],
])('fed as %s', async (_, kind, flags) => {
  const { printed: short } = await runProgram<Held>('read-tokens', [5_000, kind], flags);
  const { printed: long } = await runProgram<Held>('read-tokens', [500_000, kind], flags);
  console.info(kind, { short, long });
  expect(long.promptTokens).toBeGreaterThan(490_000);
  expect(short.promptTokens).toBeLessThan(5_100);
  expect(long.used).toBe(short.used);
  const measure = kind === 'tokens' ? 'peak' : 'resident';
  expect(Math.abs(long[measure] - short[measure])).toBeLessThan(64 * MiB);
});
