// Prints the level of instructions as JSON, and the bits of results that tell levels apart: the sum of a norm depends on
// the lanes of a register, a product on fused multiply-add, one of bfloat16 on the dot instruction.
const path = require('node:path');
const { ops, Tensor, devices } = require(path.join(__dirname, '..', '..', '..'));
const { cpu } = require(path.join(__dirname, '..', '..', '..', 'dist', 'tensor', 'device.js'));
const { Weight } = require(path.join(__dirname, '..', '..', '..', 'dist', 'ops', 'weight.js'));

let state = 1;
const values = (...shape) => {
  const data = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => {
    state = (state * 1103515245 + 12345) % 2 ** 31;
    return state / 2 ** 31 - 0.5;
  });
  return Tensor.from(data, { dtype: 'float32', shape });
};
const product = (x, dtype) => {
  const weight = Weight.zeros([64, 256], dtype);
  ops.packWeight({ source: values(64, 256), weight });
  return ops.matmul({ x, weight });
};

async function main() {
  const x = values(4, 256);
  const results = {
    norm: ops.rmsNorm({ x, weight: values(256), eps: 1e-6 }),
    float32: product(x, 'float32'),
    bfloat16: product(x, 'bfloat16'),
  };
  const bits = {};
  for (const [name, tensor] of Object.entries(results)) {
    bits[name] = Buffer.from((await tensor.read()).buffer).toString('base64');
  }
  console.log(JSON.stringify({ level: cpu().level, description: devices()[0].description, bits }));
}
main();
