// Terminates workers in the middle of their work on the GPU, then uses it; prints what was read as JSON.
//   node cuda-workers.js COUNT
const { Worker, isMainThread, workerData } = require('node:worker_threads');
const path = require('node:path');
const { ops, Tensor } = require(path.join(__dirname, '..', '..', '..'));

const device = 'cuda';
const loop = async () => {
  for (let x = Tensor.zeros({ dtype: 'float32', shape: [1 << 16], device }); ; ) {
    const next = ops.activation({ x, activation: 'silu' });
    x.dispose();
    x = next;
    await x.wait();
    workerData.port.postMessage('working');
  }
};

async function main() {
  const count = Number(process.argv[2]);
  for (let i = 0; i < count; i++) {
    const { port1, port2 } = new MessageChannel();
    const worker = new Worker(__filename, { workerData: { port: port2 }, transferList: [port2] });
    await new Promise((resolve) => port1.once('message', resolve));
    await worker.terminate();
    port1.close();
  }
  const [read] = await Tensor.from([7], { dtype: 'float32', shape: [1], device }).read();
  console.log(JSON.stringify({ workers: count, read }));
}

if (isMainThread) main();
else loop();
