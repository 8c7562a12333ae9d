// The budget of a step finds what the device reads in the target time.
import { StepBudget } from '../../lib/generation/step-budget';

/** Milliseconds of the last of `steps` steps of a device that takes fixed + perToken * tokens. */
function settledMs(target: number, fixed: number, perToken: number, steps = 20): { tokens: number; ms: number } {
  const budget = new StepBudget(target, 4096);
  const take = (tokens: number) => fixed + perToken * tokens;
  for (let i = 0; i < steps; i++) budget.measured(budget.tokens, take(budget.tokens));
  return { tokens: budget.tokens, ms: take(budget.tokens) };
}

test.each([
  [50, 0, 0.1],
  [50, 10, 0.1],
  [50, 30, 0.02],
  [20, 1, 0.01],
])('target %d ms on a device of %d ms + %d ms a token', (target, fixed, perToken) => {
  const { ms } = settledMs(target, fixed, perToken);
  expect(ms).toBeGreaterThan(0.8 * target);
  expect(ms).toBeLessThan(1.05 * target);
});

test('stays between 64 tokens and the limit', () => {
  expect(settledMs(50, 0, 10).tokens).toBe(64);
  expect(settledMs(50, 0, 1e-6).tokens).toBe(4096);
});

test('a step of few tokens tells nothing of the cost of many; one slow step is made up for', () => {
  const budget = new StepBudget(50, 4096);
  for (let i = 0; i < 20; i++) budget.measured(budget.tokens, budget.tokens * 0.05);
  const settled = budget.tokens;
  budget.measured(10, 5);
  expect(budget.tokens).toBe(settled);
  budget.measured(settled, 500);
  expect(budget.tokens).toBe(settled / 10);
  for (let i = 0; i < 5; i++) budget.measured(budget.tokens, budget.tokens * 0.05);
  expect(budget.tokens).toBe(settled);
});
