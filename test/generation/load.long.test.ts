// 200 concurrent generations for a while, in a process of its own: nobody is stuck, each result is the one of a run alone,
// and memory stays flat. LINATTN_LOAD_SECONDS says how long (20 by default).
import { runProgram } from '../support/programs';

interface Report {
  readonly generations: number;
  readonly aborted: number;
  readonly left: number;
  readonly wrong: number;
  readonly stuck: number;
  /** Milliseconds: 50, 90, 99 % and the longest. */
  readonly firstToken: readonly number[];
  readonly betweenTokens: readonly number[];
  readonly tokensPerSecond: number;
  /** Bytes after the warm-up and at the end, when nothing runs. */
  readonly used: readonly [number, number];
  readonly resident: readonly [number, number];
}

const MiB = 2 ** 20;

test('200 concurrent generations with random aborts', async () => {
  const seconds = Number(process.env.LINATTN_LOAD_SECONDS ?? 20);
  const { printed } = await runProgram<Report>('concurrent-load', [200, seconds], ['--expose-gc']);
  console.info(printed);
  expect(printed.generations).toBeGreaterThan(200);
  expect(printed.aborted).toBeGreaterThan(0);
  expect(printed.left).toBeGreaterThan(0);
  expect(printed).toMatchObject({ wrong: 0, stuck: 0 });
  expect(printed.used[1]).toBe(printed.used[0]);
  expect(printed.resident[1] - printed.resident[0]).toBeLessThan(48 * MiB);
});
