// GB/s of a copy on a device, read and written bytes together: what bench scripts hold their floors against.
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const dist = (file) => require(`../dist/${file}`);
const { Tensor } = dist('index.js');
const { fence, timed } = dist('tensor/device.js');
const { convertInto } = dist('ops/convert.js');

/** The median of 9 copies of 512 MiB. */
export async function copyRate(device) {
  const elements = 2 ** 27;
  const [from, to] = [0, 1].map(() => Tensor.zeros({ dtype: 'float32', shape: [elements], device }));
  const times = [];
  for (let run = 0; run < 11; run++) {
    const ms = await timed(device, () => convertInto({ x: from, into: to }));
    if (run >= 2) times.push(ms);
  }
  from.dispose();
  to.dispose();
  await fence(device);
  times.sort((a, b) => a - b);
  return (2 * 4 * elements) / (times[4] * 1e6);
}
