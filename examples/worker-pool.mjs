// A pool of worker threads with a model each, one for each GPU:
//
//   node examples/worker-pool.mjs 'Once upon a time' 'The sea was' 'In the year 1800'
//
// It pays with several GPUs. A model batches all requests of its process and never blocks JavaScript, so on one device a
// second model brings no speed and holds the weights again, and on the CPU all models share the same threads too: there
// the pool has one worker, unless WORKERS says otherwise (say, to keep the streams of many clients off the main thread).
// Requests of a worker that dies reject, and the pool starts another one. Needs: npm install piscina.
import { once } from 'node:events';
import { MessageChannel } from 'node:worker_threads';
import { devices, load } from 'linattn';
import { Piscina } from 'piscina';

/** Requests that one model batches; more of them wait in the pool. */
const atOnce = 16;
let model; // of this worker, loaded with its first request

/** In a worker: `port` gets the text, piece by piece. */
export default async function answer({ prompt, maxTokens, port }) {
  const { names, started } = Piscina.workerData;
  model ??= load({ device: names[Atomics.add(started, 0, 1) % names.length], maxSequences: atOnce });
  const run = (await model).generate({ prompt, maxTokens, seed: 1 });
  for await (const { text } of run) port.postMessage(text);
  port.close();
  return (await run.result).usage;
}

async function main(prompts) {
  if (prompts.length === 0) {
    console.error('usage: node worker-pool.mjs <prompt> ...');
    process.exit(2);
  }
  const gpus = devices().filter(({ name, unavailable }) => name !== 'cpu' && unavailable === undefined);
  const names = gpus.length > 0 ? gpus.map(({ name }) => name) : ['cpu'];
  const workers = Number(process.env.WORKERS ?? names.length);
  const pool = new Piscina({
    filename: import.meta.filename,
    minThreads: workers,
    maxThreads: workers,
    concurrentTasksPerWorker: atOnce,
    atomics: 'disabled', // else an idle worker stops its event loop, and the ends of streams with it
    workerData: { names, started: new Int32Array(new SharedArrayBuffer(4)) },
  });
  const answers = prompts.map(async (prompt) => {
    const { port1, port2 } = new MessageChannel();
    let text = '';
    port1.on('message', (piece) => {
      text += piece; // a service would send it on
    });
    const task = pool.run({ prompt, maxTokens: 40, port: port2 }, { transferList: [port2] });
    const [usage] = await Promise.all([task, once(port1, 'close')]);
    return { prompt, text, usage };
  });
  for (const { prompt, text, usage } of await Promise.all(answers)) {
    console.log(`${prompt}${text}\n`);
    console.error(`${usage.completionTokens} tokens, the first after ${usage.timeToFirstTokenMs.toFixed(0)} ms`);
  }
  await pool.destroy();
}

if (!Piscina.isWorkerThread) await main(process.argv.slice(2));
