// Terminates workers in the middle of a write that reads their memory without a copy. Prints the rounds as JSON.
const path = require('node:path');
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');
const root = path.join(__dirname, '..', '..', '..');
const { Tensor } = require(path.join(root, 'dist', 'tensor', 'tensor.js'));

function write(bytes) {
  const tensor = Tensor.zeros({ dtype: 'float32', shape: [bytes / 4], device: 'cpu' });
  tensor.writeHeld(new Uint8Array(bytes).fill(1), 0);
  setTimeout(() => parentPort.postMessage('writes'), 50);
}

async function rounds(count, bytes) {
  const kept = Tensor.zeros({ dtype: 'float32', shape: [4], device: 'cpu' });
  for (let round = 0; round < count; round++) {
    const worker = new Worker(__filename, { workerData: bytes });
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    await worker.terminate();
    await kept.read(); // behind the write
  }
  console.log(JSON.stringify({ rounds: count }));
}

if (isMainThread) rounds(Number(process.argv[2]), 2 ** 29);
else write(workerData);
