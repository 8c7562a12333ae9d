// examples/worker-pool.mjs: every prompt is answered, by as many workers as are asked for.
import { runExample } from '../support/examples';

test.each(['1', '2'])('a pool of %s answers every prompt in order, to its last piece', async (workers) => {
  const prompts = ['Once upon a time', 'The sea was', 'In the year 1800'];
  const { code, out, err } = await runExample('worker-pool.mjs', prompts, { WORKERS: workers });
  expect(err).toMatch(/^(\d+ tokens, the first after \d+ ms\n){3}$/);
  expect(code).toBe(0);
  const places = prompts.map((prompt) => out.indexOf(prompt));
  expect(places).toEqual(places.toSorted((a, b) => a - b));
  expect(places[0]).toBe(0);
  const tokens = [...err.matchAll(/^(\d+) tokens/gm)].map(([, count]) => Number(count));
  expect(tokens).toEqual([40, 40, 40]);
  // The texts are those of one model without a pool.
  const { out: alone } = await runExample('worker-pool.mjs', ['The sea was'], { WORKERS: '1' });
  expect(out).toContain(alone);
});

test('without a prompt it says how it is called', async () => {
  expect(await runExample('worker-pool.mjs', [])).toMatchObject({ code: 2, err: expect.stringContaining('usage') });
});
