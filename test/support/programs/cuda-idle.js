// Holds tensors on the GPU, then none; prints what the device keeps of it, in MiB, with one tensor left and with none.
const path = require('node:path');
const root = path.join(__dirname, '..', '..', '..');
const { devices, Tensor } = require(root);
const { fence } = require(path.join(root, 'dist', 'tensor', 'device.js'));

async function main() {
  const cuda = devices().find(({ name }) => name === 'cuda:0');
  const make = (MiB) => {
    const tensor = Tensor.zeros({ dtype: 'uint8', shape: [MiB * 2 ** 20], device: 'cuda' });
    tensor.write(Uint8Array.of(1)); // memory comes with the first use
    return tensor;
  };
  const kept = async (tensors) => {
    for (const tensor of tensors) tensor.dispose();
    await fence('cuda');
    return cuda.memory().reserved / 2 ** 20;
  };
  const tensors = [100, 60, 40].map(make);
  const printed = { held: await kept([]), last: await kept(tensors.slice(0, 2)), none: await kept(tensors.slice(2)) };
  console.log(JSON.stringify({ ...printed, little: await kept([make(40)]) }));
}

main();
