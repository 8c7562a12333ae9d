// Worker threads terminated in mid-prefill and while they read: no crash, nothing held, no memory that grows.
import { runProgram } from '../support/programs';
import { slope, terminateWorkers } from '../support/terminated-workers';

test('fifty workers terminated in mid-prefill leave nothing behind', async () => {
  const resident = await terminateWorkers(50);
  const growth = slope(resident.slice(10));
  console.info({ first: resident[0], tenth: resident[9], last: resident[49], growthKiB: growth / 1024 });
  expect(growth).toBeLessThan(256 * 1024);
});

// About one termination in seventy falls into the moment in which a completion calls JavaScript.
test('three hundred workers terminated while thousands of their reads complete end quietly', async () => {
  expect((await runProgram('terminate-at-work', [300])).printed).toEqual({ rounds: 300 });
});

test('a store that never answers keeps the process for no second after dispose', async () => {
  const { printed, endedAt } = await runProgram<{ at: number }>('silent-store');
  expect(endedAt - printed.at).toBeLessThan(1000);
});
