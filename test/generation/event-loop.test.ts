// The event loop stays free while a prompt of 20,000 tokens is read.
import { longestDelays } from '../support/event-loop';

// Beside other work the machine itself may hold up a process: the control run, with idle JavaScript, tells.
test('no delay reaches 50 ms, or twice that of an idle process', async () => {
  const delays = await longestDelays(20_000);
  expect(delays[0]!.promptTokens).toBeGreaterThan(19_000);
  expect(delays.at(-1)!.maxMs).toBeLessThan(delays.at(-1)!.limitMs);
}, 240_000);
