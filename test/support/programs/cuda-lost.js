// Calls an op on the GPU again and again while the emulator loses the device (LINATTN_EMULATOR_LOSE); prints the code of each
// read's error, those of a write of pinned memory before and after, and what the cpu still computes.
const path = require('node:path');
const root = path.join(__dirname, '..', '..', '..');
const { ops, Tensor } = require(root);
const { BlockMemory } = require(path.join(root, 'dist', 'state', 'block-memory.js'));
const { pinFor } = require(path.join(root, 'dist', 'state', 'pin.js'));

async function main() {
  const codes = [];
  const memory = new BlockMemory(pinFor('cuda'));
  const pool = Tensor.zeros({ dtype: 'float32', shape: [2 ** 20], device: 'cuda' });
  const block = memory.take(2 ** 22);
  const write = () =>
    pool.writeHeld(block, 0).then(
      () => '',
      ({ code }) => code,
    );
  const writes = [await write()];
  for (let i = 0; i < 8; i++) {
    try {
      const x = Tensor.from([i], { dtype: 'float32', shape: [1], device: 'cuda' });
      await ops.activation({ x, activation: 'relu' }).read();
      codes.push('');
    } catch ({ code }) {
      codes.push(code);
    }
  }
  writes.push(await write());
  memory.dispose();
  const x = Tensor.from([4], { dtype: 'float32', shape: [1], device: 'cpu' });
  const [cpu] = await ops.activation({ x, activation: 'relu' }).read();
  console.log(JSON.stringify({ codes, writes, cpu }));
}

main();
