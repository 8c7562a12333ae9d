// Prints as JSON why the device cuda is not there: as devices() says it, and as a tensor's error does.
const path = require('node:path');
const { devices, Tensor } = require(path.join(__dirname, '..', '..', '..'));

const { name, unavailable } = devices().at(-1);
let error;
try {
  Tensor.zeros({ dtype: 'float32', shape: [1], device: 'cuda' });
} catch ({ code, message }) {
  error = { code, message };
}
console.log(JSON.stringify({ name, unavailable, error }));
