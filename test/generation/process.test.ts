// What a process sees that uses the compiled library: it ends by itself, and worker threads come and go.
import { runProgram } from '../support/programs';
import { terminateWorkers } from '../support/terminated-workers';

test('a script that disposes nothing stays until its generation has ended, and ends within a second in one of three runs', async () => {
  const times: number[] = [];
  while (times.length < 3 && !times.some((ms) => ms < 1000)) {
    const { printed, endedAt } = await runProgram<{ tokens: number; at: number }>('never-dispose');
    expect(printed.tokens).toBe(20);
    times.push(endedAt - printed.at);
  }
  expect(Math.min(...times)).toBeLessThan(1000);
});

test('ten workers terminated in mid-prefill leave no tensor, no command and no byte', async () => {
  await terminateWorkers(10);
});

test('twenty workers terminated while they call the addon end quietly', async () => {
  expect((await runProgram('terminate-at-work', [20, 'calls'])).printed).toEqual({ rounds: 20 });
});
