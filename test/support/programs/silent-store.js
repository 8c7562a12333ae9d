// A store that takes a state and never says so. Prints as JSON when the model had been disposed (Unix time, ms).
const path = require('node:path');
const { load } = require(path.join(__dirname, '..', '..', '..'));

const store = { get: async () => undefined, set: () => new Promise(() => undefined), keys: async () => [] };
load({ prefixCache: { store: { ...store, delete: async () => undefined } } }).then(async (model) => {
  await model.generate({ tokens: new Int32Array(100).fill(1), maxTokens: 1 }).result;
  await model.dispose();
  console.log(JSON.stringify({ at: Date.now() }));
});
