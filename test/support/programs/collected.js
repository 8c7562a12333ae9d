// Prints as JSON what the device says of tensors that are made, disposed, and forgotten. With --expose-gc they are collected
// by hand, and how long the event loop stood still for that behind a long command is told too; without it, what is used at
// most while outputs are forgotten one after the other: V8 collects in time only if it knows what they hold.
const path = require('node:path');
const root = path.join(__dirname, '..', '..', '..');
const { ops, Tensor, devices } = require(root);
const { Weight } = require(path.join(root, 'dist', 'ops', 'weight.js'));
const { fence } = require(path.join(root, 'dist', 'tensor', 'device.js'));

const mib = 2 ** 20;
const used = () => devices()[0].memory().used;
const turn = () => new Promise((resolve) => setImmediate(resolve));
const made = (count) =>
  Array.from({ length: count }, () => Tensor.from(new Float32Array(mib / 4), { dtype: 'float32', shape: [mib / 4] }));

async function collect() {
  for (let i = 0; i < 4; i++) {
    global.gc();
    await turn();
  }
}

async function forgetting(count) {
  const x = Tensor.zeros({ dtype: 'float32', shape: [4 * mib] });
  let most = 0;
  for (let i = 0; i < count; i++) {
    await ops.activation({ x, activation: 'relu' }).wait();
    most = Math.max(most, used());
  }
  console.log(JSON.stringify({ made: count * x.byteLength, most }));
}

async function collecting() {
  await fence('cpu');
  const start = used();
  const tensors = made(64);
  await fence('cpu');
  const held = used() - start;
  for (const tensor of tensors) tensor.dispose();
  await fence('cpu');
  const disposed = used() - start;

  made(64);
  const x = Tensor.zeros({ dtype: 'float32', shape: [4096, 2048] });
  const weight = Weight.zeros([2048, 2048], 'float32');
  await fence('cpu');
  const began = performance.now();
  const products = Array.from({ length: 4 }, () => ops.matmul({ x, weight }));
  await turn();
  await collect();
  const collected = performance.now() - began;
  const behind = used() - start;
  await products[3].wait();
  const working = performance.now() - began;
  for (const tensor of [x, ...products]) tensor.dispose();
  weight.dispose();
  await fence('cpu');
  const forgotten = used() - start;
  console.log(JSON.stringify({ held, disposed, forgotten, behind, collected, working }));
}

if (global.gc) collecting();
else forgetting(200);
