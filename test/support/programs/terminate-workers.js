// Loads the default model in a worker thread and terminates it in mid-prefill, argv[2] times. Prints as JSON the
// counters of the process before the first round, during one and after the last, and its resident memory by round.
const path = require('node:path');
const { Worker, isMainThread, parentPort } = require('node:worker_threads');
const root = path.join(__dirname, '..', '..', '..');
const { load, devices } = require(root);
const { counters } = require(path.join(root, 'dist', 'tensor', 'device.js'));

async function work() {
  const model = await load({ maxSequences: 2 });
  const tokens = Int32Array.from({ length: 100_000 }, (_, i) => 1 + (i % 8000));
  const onPrefillProgress = ({ done }) => done > 0 && parentPort.postMessage(done);
  await model.createSession().prefill({ tokens }, { onPrefillProgress });
}

const held = () => {
  const { tensors, waiting } = counters('cpu');
  return { tensors, waiting, used: devices()[0].memory().used };
};
const same = (a, b) => Object.keys(a).every((key) => a[key] === b[key]);

async function rounds(count) {
  const before = held();
  let during;
  const resident = [];
  for (let round = 0; round < count; round++) {
    const worker = new Worker(__filename);
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    during = held();
    await worker.terminate();
    for (let wait = 0; wait < 1500 && !same(held(), before); wait++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const after = held();
    if (!same(after, before)) {
      console.log(JSON.stringify({ before, during, after, round, resident }));
      return;
    }
    resident.push(process.memoryUsage.rss());
  }
  console.log(JSON.stringify({ before, during, after: held(), round: count, resident }));
}

if (isMainThread) rounds(Number(process.argv[2]));
else work();
