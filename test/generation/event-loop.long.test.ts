// The event loop stays free while a prompt of 200,000 tokens is read.
import { longestDelays } from '../support/event-loop';

test('no delay reaches 50 ms', async () => {
  const delays = await longestDelays(200_000, 50);
  console.info(delays);
  expect(delays[0]!.promptTokens).toBeGreaterThan(195_000);
  expect(delays.at(-1)!.maxMs).toBeLessThan(50);
});
