// The event loop stays free while a prompt of 20,000 tokens is read.
import { longestDelays } from '../support/event-loop';

// Beside other tests the machine itself may hold up a process: the control run, with idle JavaScript, tells.
test('no delay reaches 50 ms, or twice that of an idle process', async () => {
  const { work, best, controlMs } = await longestDelays(20_000);
  expect(work[0]!.promptTokens).toBeGreaterThan(19_000);
  expect(best).toBeLessThan(Math.max(50, 2 * controlMs));
});
