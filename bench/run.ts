// JavaScript-level costs, timed by the npm package `benchmark` (npm run build first): what a call, a tensor and a text
// cost on the calling thread. Kernels are timed by `linattn bench`.
import Benchmark from 'benchmark';
import { load, ops, scope, Tensor } from 'linattn';

type Deferred = { resolve(): void };

async function main(): Promise<void> {
  const model = await load();
  const rows = Tensor.from([0], { dtype: 'int32', shape: [1] });
  const offsets = Tensor.from([0, 1], { dtype: 'int32', shape: [2] });
  const table = Tensor.zeros({ dtype: 'int32', shape: [1, 16] });
  const x = Tensor.zeros({ dtype: 'float32', shape: [1, 64] });
  const weight = Tensor.zeros({ dtype: 'float32', shape: [64] });
  const values = new Float32Array(1024);
  const text = 'The old house stood on the hill above the sea. '.repeat(100);
  const suite = new Benchmark.Suite();
  const wait = async (deferred: Deferred, work: () => Promise<unknown>) => {
    await work();
    deferred.resolve();
  };
  // 64 calls and one wait, so that the queue does not grow: times are of 64 calls.
  const calls = (enqueue: () => void) => ({
    defer: true,
    fn: (deferred: Deferred) =>
      void wait(deferred, () => {
        scope(() => {
          for (let i = 0; i < 64; i++) enqueue();
        });
        return rows.read();
      }),
  });
  suite
    .add(
      '64 op calls without an output (commitStep)',
      calls(() => ops.commitStep(rows, table)),
    )
    .add(
      '64 op calls with five outputs (beginStep)',
      calls(() => void ops.beginStep(rows, offsets, table, true)),
    )
    .add(
      '64 op calls with one output (rmsNorm)',
      calls(() => void ops.rmsNorm({ x, weight, eps: 1e-6 })),
    )
    .add('Tensor.from 1,024 float32, read, dispose', {
      defer: true,
      fn: (deferred: Deferred) =>
        void wait(deferred, async () => {
          const tensor = Tensor.from(values, { dtype: 'float32', shape: [1024] });
          await tensor.read();
          tensor.dispose();
        }),
    })
    .add('encode 4,700 characters', {
      defer: true,
      fn: (deferred: Deferred) => void wait(deferred, () => model.tokenizer.encode(text)),
    })
    .on('cycle', (event: Benchmark.Event) => console.log(String(event.target)))
    .on('complete', () => void model.dispose());
  suite.run({ async: true });
}

void main();
