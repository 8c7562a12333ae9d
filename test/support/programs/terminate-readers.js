// Terminates workers, argv[2] one after the other, while thousands of their reads complete. Prints the rounds as JSON.
const path = require('node:path');
const { Worker, isMainThread, parentPort } = require('node:worker_threads');
const { Tensor } = require(path.join(__dirname, '..', '..', '..'));

async function read() {
  const tensor = Tensor.zeros({ dtype: 'float32', shape: [4], device: 'cpu' });
  parentPort.postMessage('reads');
  for (;;) await Promise.all(Array.from({ length: 2000 }, () => tensor.read()));
}

async function rounds(count) {
  for (let round = 0; round < count; round++) {
    const worker = new Worker(__filename);
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    await new Promise((resolve) => setTimeout(resolve, 10 + (round % 20)));
    await worker.terminate();
  }
  console.log(JSON.stringify({ rounds: count }));
}

if (isMainThread) rounds(Number(process.argv[2]));
else read();
