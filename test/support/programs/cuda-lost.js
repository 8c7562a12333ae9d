// Calls an op on the GPU again and again while the emulator loses the device (LINATTN_EMULATOR_LOSE); prints the code of each
// read's error and what the cpu still computes.
const path = require('node:path');
const { ops, Tensor } = require(path.join(__dirname, '..', '..', '..'));

async function main() {
  const codes = [];
  for (let i = 0; i < 8; i++) {
    try {
      const x = Tensor.from([i], { dtype: 'float32', shape: [1], device: 'cuda' });
      await ops.activation({ x, activation: 'relu' }).read();
      codes.push('');
    } catch ({ code }) {
      codes.push(code);
    }
  }
  const x = Tensor.from([4], { dtype: 'float32', shape: [1], device: 'cpu' });
  const [cpu] = await ops.activation({ x, activation: 'relu' }).read();
  console.log(JSON.stringify({ codes, cpu }));
}

main();
