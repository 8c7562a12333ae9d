// Fifty worker threads terminated in mid-prefill: no crash, nothing held, no memory that grows.
import { slope, terminateWorkers } from '../support/terminated-workers';

test('fifty workers terminated in mid-prefill leave nothing behind', async () => {
  const resident = await terminateWorkers(50);
  const growth = slope(resident.slice(10));
  console.info({ first: resident[0], tenth: resident[9], last: resident[49], growthKiB: growth / 1024 });
  expect(growth).toBeLessThan(256 * 1024);
});
