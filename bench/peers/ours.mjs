// linattn's side of prefill.py: one JSON request a line on stdin, one JSON answer a line on stdout. Inputs come as files of
// one block of tokens, which is repeated along the prompt on the device, so that both sides have the same values.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const require = createRequire(import.meta.url);
const dist = (file) => require(`../../dist/${file}`);
const { Tensor, ops } = dist('index.js');
const { deviceOf, fence, timed } = dist('tensor/device.js');
const { scope } = dist('tensor/scope.js');
const { convertInto } = dist('ops/convert.js');
const { packedSequences } = dist('ops/sequences.js');

const device = 'cuda:0';
let current;
let flush;

const arrays = { float32: Float32Array, bfloat16: Uint16Array };

/** [batch * tokens, ...] from a file of [block, ...]. */
function repeated({ file, dtype, shape }, total) {
  const bytes = readFileSync(file);
  const data = new arrays[dtype](bytes.buffer, bytes.byteOffset, bytes.byteLength / arrays[dtype].BYTES_PER_ELEMENT);
  const block = Tensor.from(data, { dtype, shape, device });
  if (total === undefined || total === shape[0]) return block;
  const width = shape.slice(1).reduce((product, size) => product * size, 1);
  const out = Tensor.zeros({ dtype, shape: [total, ...shape.slice(1)], device });
  for (let at = 0; at < total; at += shape[0]) {
    const into = out.view([shape[0], ...shape.slice(1)], at * width, width);
    convertInto({ x: block, into });
    into.dispose();
  }
  block.dispose();
  return out;
}

function open({ batch, tokens, inputs, rule, decay, denominator, scale, heads, K, V }) {
  const total = batch * tokens;
  const tensors = Object.fromEntries(
    Object.entries(inputs).map(([name, file]) => [
      name,
      repeated(file, name === 'g' && decay === 'head' ? undefined : total),
    ]),
  );
  const { q, k, v, g, beta, a, b } = tensors;
  const slots = Array.from({ length: batch }, (_, i) => i);
  const sequences = packedSequences(
    slots.map(() => tokens),
    { readSlots: slots.map(() => -1), writeSlots: slots, device },
  );
  const state = Tensor.zeros({ dtype: 'float32', shape: [batch, heads, V, K], device });
  const keySum = denominator ? Tensor.zeros({ dtype: 'float32', shape: [batch, heads, K], device }) : undefined;
  const rules = { additive: {}, delta: { beta }, lowRank: { a, b } };
  const input = {
    q,
    k,
    v,
    rule: { name: rule, ...rules[rule] },
    decay: decay ? { per: decay, g } : undefined,
    normalize: denominator ? { eps: 1e-10 } : undefined,
    scale: denominator ? 1 : scale,
    state,
    keySum,
    sequences,
  };
  const enqueue = () => ops.linearAttention(input);
  scope(() => void enqueue());
  const graph = deviceOf(device).capture(() => scope(() => void enqueue()));
  graph.replay();
  graph.replay();
  const made = [...Object.values(tensors), sequences, state, ...(keySum ? [keySum] : []), graph];
  return { enqueue, graph, state, dispose: () => made.forEach((one) => void one.dispose()) };
}

const commands = {
  async open(request) {
    current?.dispose();
    current = open(request);
    await fence(device);
    return {};
  },
  /** Milliseconds of one replay behind a write of 256 MiB. */
  async time() {
    flush ??= [0, 1].map(() => Tensor.zeros({ dtype: 'float32', shape: [2 ** 26], device }));
    convertInto({ x: flush[0], into: flush[1] });
    return { ms: await timed(device, () => current.graph.replay()) };
  },
  /** Into files: the `last` outputs of all tokens, and the states. */
  async results({ out, state, last }) {
    const made = scope(() => current.enqueue().out);
    const [total, ...rest] = made.shape;
    const width = rest.reduce((product, size) => product * size, 1);
    const tail = made.view([last, ...rest], (total - last) * width, width);
    writeFileSync(out, await tail.read());
    tail.dispose();
    made.dispose();
    writeFileSync(state, await current.state.read());
    return {};
  },
  async close() {
    current?.dispose();
    current = undefined;
    await fence(device);
    return {};
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...request } = JSON.parse(line);
  const answer = await commands[command](request).catch((error) => ({ error: String(error.stack ?? error) }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
