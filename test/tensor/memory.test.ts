// V8 knows what tensors hold, forgotten ones are freed, and freeing them never waits for the device; on the cpu, whose
// commands take long.
import { constants, PerformanceObserver } from 'node:perf_hooks';
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

test('nothing is written beyond a tensor, at any offset', async () => {
  const x = Tensor.zeros({ dtype: 'float32', shape: [4], device: 'cpu' });
  const refused = expect.objectContaining({ code: 'ERR_SHAPE' });
  for (const offset of [-1, 4, 2 ** 50, -(2 ** 50)]) {
    expect(() => x.write(Float32Array.of(1), offset)).toThrow(refused);
    await expect(x.writeHeld(new Uint8Array(4), offset * 4)).rejects.toEqual(refused);
  }
  expect(await x.read()).toEqual(new Float32Array(4));
});

test('V8 hears that tensors with views are gone: it does not collect for them', async () => {
  let collections = 0;
  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      if ((entry as unknown as { detail: { kind: number } }).detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR)
        collections++;
    }
  });
  observer.observe({ entryTypes: ['gc'] });
  for (let i = 0; i < 200; i++) {
    const x = Tensor.zeros({ dtype: 'float32', shape: [2 ** 22] });
    Tensor.disposeAll([x, x.view([2 ** 20], 0, 1)]); // as a scope does
    const last = Tensor.zeros({ dtype: 'float32', shape: [1] });
    await last.wait(); // where V8 is told
    last.dispose();
    await new Promise((resolve) => setImmediate(resolve));
  }
  await new Promise((resolve) => setTimeout(resolve, 50));
  observer.disconnect();
  expect(collections).toBeLessThan(5); // of 3.3 GB
});

test('a worker that ends in the middle of a held write takes its memory along only after it', async () => {
  expect((await runProgram('held-writes', [3])).printed).toEqual({ rounds: 3 });
});
