// JavaScript-level costs, timed by the npm package `benchmark` (npm run build first): what a call, a tensor and a text
// cost on the calling thread. Kernels are timed by `linattn bench`.
import Benchmark from 'benchmark';
import { load, ops, scope, Tensor } from 'linattn';

type Deferred = { resolve(): void };

const callsAtOnce = 64;

/** Prints what a call costs the calling thread, the freeing of its outputs included: the queue's work is waited for, not timed. */
async function callCosts(calls: Readonly<Record<string, () => void>>, settled: () => Promise<unknown>): Promise<void> {
  const times = new Map(Object.keys(calls).map((name) => [name, [] as number[]]));
  for (let round = 0; round < 400; round++) {
    for (const [name, call] of Object.entries(calls)) {
      const start = performance.now();
      scope(() => {
        for (let i = 0; i < callsAtOnce; i++) call();
      });
      const microseconds = ((performance.now() - start) * 1000) / callsAtOnce;
      if (round >= 100) times.get(name)!.push(microseconds);
      await settled();
    }
  }
  for (const [name, all] of times) {
    all.sort((a, b) => a - b);
    const at = (share: number) => all[Math.floor(all.length * share)]!.toFixed(2);
    console.log(`an op call with ${name}: ${at(0.5)} us of the calling thread (${at(0.1)} to ${at(0.9)})`);
  }
}

async function main(): Promise<void> {
  const model = await load();
  const rows = Tensor.from([0], { dtype: 'int32', shape: [1] });
  const offsets = Tensor.from([0, 1], { dtype: 'int32', shape: [2] });
  const table = Tensor.zeros({ dtype: 'int32', shape: [1, 16] });
  const x = Tensor.zeros({ dtype: 'float32', shape: [1, 64] });
  const weight = Tensor.zeros({ dtype: 'float32', shape: [64] });
  const values = new Float32Array(1024);
  const text = 'The old house stood on the hill above the sea. '.repeat(100);
  const calls = {
    'no output (commitStep)': () => void ops.commitStep(rows, table),
    'one output (rmsNorm)': () => void ops.rmsNorm({ x, weight, eps: 1e-6 }),
    'five outputs (beginStep)': () => void ops.beginStep(rows, offsets, table, true),
  };
  await callCosts(calls, () => rows.read());
  const suite = new Benchmark.Suite();
  const wait = async (deferred: Deferred, work: () => Promise<unknown>) => {
    await work();
    deferred.resolve();
  };
  suite
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
