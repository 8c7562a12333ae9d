// The event loop stays free while a prompt of 200,000 tokens is read.
import { longestDelays } from '../support/event-loop';

test('no delay reaches 50 ms', async () => {
  const { work, controlMs, best } = await longestDelays(200_000);
  console.info({ work, controlMs });
  expect(work[0]!.promptTokens).toBeGreaterThan(195_000);
  expect(best).toBeLessThan(50);
});
