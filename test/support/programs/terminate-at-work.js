// Terminates workers, argv[2] one after the other, while thousands of their reads complete, or (argv[3] is `calls`) while
// they call the addon. Prints the rounds as JSON.
const path = require('node:path');
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');
const { Tensor, devices } = require(path.join(__dirname, '..', '..', '..'));

async function work(kind) {
  const tensor = Tensor.zeros({ dtype: 'float32', shape: [4], device: 'cpu' });
  parentPort.postMessage('works');
  while (kind === 'reads') await Promise.all(Array.from({ length: 2000 }, () => tensor.read()));
  for (;;) {
    devices();
    try {
      Tensor.zeros({ dtype: 'float32', shape: [1e15, 10], device: 'cpu' });
    } catch {
      // an error of the addon is an object that it makes
    }
  }
}

async function rounds(count, kind) {
  for (let round = 0; round < count; round++) {
    const worker = new Worker(__filename, { workerData: kind });
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    await new Promise((resolve) => setTimeout(resolve, round % 20));
    await worker.terminate();
  }
  console.log(JSON.stringify({ rounds: count }));
}

if (isMainThread) rounds(Number(process.argv[2]), process.argv[3] ?? 'reads');
else work(workerData);
