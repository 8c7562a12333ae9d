// Tests and the GPU's memory: which take it all, and which found none. Both kinds run alone.
const takesAllMemory = (file) => file.endsWith('/test/cuda/device.test.ts');
/** Of a test's line of results-reporter.js. */
const foundNoMemory = ({ status, message }) => status === 'failed' && message.includes('no memory for a tensor');

module.exports = { foundNoMemory, takesAllMemory };
