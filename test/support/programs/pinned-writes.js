// Terminates workers whose writes of pinned memory are on their way to the device (argument 2: how many), then writes from
// here, and forgets that memory. Prints how many workers there were and whether what was written from here is right.
const path = require('node:path');
const { Worker, isMainThread, parentPort } = require('node:worker_threads');
const dist = path.join(__dirname, '..', '..', '..', 'dist');
const { BlockMemory } = require(path.join(dist, 'state', 'block-memory.js'));
const { pinFor } = require(path.join(dist, 'state', 'pin.js'));
const { Tensor } = require(path.join(dist, 'tensor', 'tensor.js'));

const blockBytes = 2 ** 24;
const blocks = 6;

/** Writes `blocks` blocks, block i of i, to a new tensor. */
function writes() {
  const memory = new BlockMemory(pinFor('cuda'));
  const tensor = Tensor.make({ dtype: 'int32', shape: [blocks, blockBytes / 4], device: 'cuda' }, true, true);
  const done = Array.from({ length: blocks }, (_, i) =>
    tensor.writeHeld(memory.take(blockBytes).fill(i), i * blockBytes),
  );
  return { tensor, done: Promise.all(done) };
}

async function main(workers) {
  for (let i = 0; i < workers; i++) {
    const worker = new Worker(__filename);
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    await worker.terminate();
  }
  const { tensor, done } = writes();
  await done;
  const read = new Uint8Array((await tensor.read()).buffer);
  const isRight = read.every((value, i) => value === Math.floor(i / blockBytes));
  console.log(JSON.stringify({ workers, isRight }));
}

if (isMainThread) main(Number(process.argv[2]));
else {
  writes();
  parentPort.postMessage('written');
}
