// V8 knows what tensors hold, forgotten ones are freed, and freeing them never waits for the device; on the cpu, whose
// commands take long.
import { Tensor } from '../../lib/tensor/tensor';
import { runProgram } from '../support/programs';

const mib = 2 ** 20;
const env = { LINATTN_DEVICE: 'cpu' };

test('tensors are freed by dispose or by the garbage collector, which waits for no command', async () => {
  const { printed } = await runProgram<
    Record<'held' | 'disposed' | 'forgotten' | 'behind' | 'collected' | 'working', number>
  >('collected', [], ['--expose-gc'], env);
  expect(printed).toMatchObject({ held: 64 * mib, disposed: 0, forgotten: 0 });
  // The product was still running when the collector was done with 64 tensors, whose frees wait behind it.
  expect(printed.behind).toBeGreaterThan(64 * mib);
  expect(printed.collected).toBeLessThan(printed.working);
});

test('a service that disposes nothing does not fill the memory: V8 is told what tensors hold', async () => {
  const { made, most } = (await runProgram<{ made: number; most: number }>('collected', [], [], env)).printed;
  expect(made).toBe(200 * 16 * mib);
  expect(most).toBeLessThan(made / 4);
});

test('V8 hears that tensors with views are gone', async () => {
  const before = process.memoryUsage().external;
  for (let i = 0; i < 50; i++) {
    const x = Tensor.zeros({ dtype: 'float32', shape: [2 ** 21] });
    const half = x.view([2 ** 20], 0, 1);
    for (const tensor of [x, half]) tensor.dispose();
    const last = Tensor.zeros({ dtype: 'float32', shape: [1] });
    await last.wait(); // where V8 is told
    last.dispose();
  }
  expect(process.memoryUsage().external - before).toBeLessThan(100e6); // of 400 MB
});
