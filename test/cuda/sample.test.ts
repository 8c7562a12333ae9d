// The tokens of the GPU beside those of the CPU, which the tests of sample hold against the reference: every filter, vocabularies
// of one tile and many, equal scores, and more scores at the edge of a filter than a row's list holds. And many rows, whose
// tiles share blocks, beside the same rows a few at a time.
import { gatherRows } from '../../lib/ops/gather-rows';
import { sample } from '../../lib/ops/sample';
import { encodeSampling, type Sampling, tokenWords } from '../../lib/ops/sampling-table';
import { type DeviceName, deviceOf } from '../../lib/tensor/device';
import { Tensor } from '../../lib/tensor/tensor';
import { seeded } from '../support/arrays';

const settings: Sampling[] = [
  {},
  { temperature: 0 },
  { temperature: 0.7, topK: 50 },
  { topP: 0.95 },
  { topP: 0.5, temperature: 20 },
  { topK: 3000, topP: 0.9 },
  { minP: 0.05, topP: 0.99 },
  { minP: 0.2 },
  { topK: 20, topP: 0.95, temperature: 0.6, repetitionPenalty: 1.1 },
  { temperature: 0.01, topK: 40 },
  { topK: 20000, topP: 0.999, temperature: 5 },
  { topP: 0 },
  { topK: 1 },
  { topP: 0.9999999, temperature: 3 },
  { temperature: 100, topK: 9000, topP: 0.3, minP: 0.9 },
];

interface Drawn {
  token: Int32Array;
  logprob: Float32Array;
}

/** Every setting on the same logits, which begin `apart` values into each row of memory. */
async function draw(device: DeviceName, logits: Float32Array, seed: number, apart: number): Promise<Drawn> {
  const N = settings.length;
  const stride = logits.length + apart;
  const words = tokenWords(logits.length);
  const rows = new Float32Array(N * stride + apart);
  const params = new Float32Array(N * 8);
  const intParams = new Int32Array(N * 8);
  for (const [n, setting] of settings.entries()) {
    rows.set(logits, apart + n * stride);
    const encoded = encodeSampling({ ...setting, seed: seed + n });
    params.set(encoded.params, n * 8);
    intParams.set(encoded.intParams, n * 8);
  }
  const all = Tensor.from(rows, { dtype: 'float32', shape: [rows.length], device });
  const ints = (values: Int32Array, shape: number[]) => Tensor.from(values, { dtype: 'int32', shape, device });
  const { token, logprob } = sample({
    logits: all.view([N, logits.length], apart, stride),
    rows: ints(
      Int32Array.from(settings, (_, n) => n),
      [N],
    ),
    positions: ints(
      Int32Array.from(settings, (_, n) => seed * 7 + n),
      [N],
    ),
    params: Tensor.from(params, { dtype: 'float32', shape: [N, 8], device }),
    intParams: ints(intParams, [N, 8]),
    seen: ints(
      Int32Array.from({ length: N * words }, (_, i) => (i % words) * 2654435761),
      [N, words],
    ),
  });
  return { token: await token.read(), logprob: await logprob.read() };
}

test.each([
  ['one tile', 40, 1, 40, 0],
  ['two tiles, rows that are not aligned', 5000, 3, 20, 1],
  ['many tiles', 32000, 2, 6, 4],
  ['the largest vocabulary', 248320, 3, 1, 0],
  ['equal scores', 9001, 0, 3, 0],
  ['nearly equal scores', 50000, 0.001, 2, 0],
])('%s', async (_, vocab, deviation, rounds, apart) => {
  let differing = 0;
  for (let round = 0; round < rounds; round++) {
    const coarse = round % 2 === 1; // so that many scores are equal
    const values = seeded(vocab + round).normal([vocab], deviation).data;
    const logits = Float32Array.from(values, (x) => (coarse ? Math.round(x * 4) / 4 : x));
    const expected = await draw('cpu', logits, round * 100, apart);
    const actual = await draw(deviceOf('cuda').name, logits, round * 100, apart);
    for (const [n, token] of expected.token.entries()) {
      if (actual.token[n] !== token) {
        differing++;
      } else {
        const logprob = expected.logprob[n]!;
        expect(Math.abs(actual.logprob[n]! - logprob)).toBeLessThan(2e-6 * (1 + Math.abs(logprob)));
      }
    }
  }
  // A random number at the very border of two tokens may fall on either side.
  expect(differing).toBeLessThanOrEqual(Math.ceil(0.002 * rounds * settings.length));
});

test('many rows draw what the same rows draw a few at a time', async () => {
  const device = deviceOf('cuda').name;
  const [vocab, together, times] = [9001, settings.length, 72];
  const words = tokenWords(vocab);
  const logits = Tensor.from(Float32Array.from(seeded(5).normal([together, vocab], 3).data), {
    dtype: 'float32',
    shape: [together, vocab],
    device,
  });
  const encoded = settings.map((setting, n) => encodeSampling({ ...setting, seed: n }));
  const params = Float32Array.from(encoded.flatMap((one) => [...one.params]));
  const intParams = Int32Array.from(encoded.flatMap((one) => [...one.intParams]));
  const ints = (values: Int32Array, shape: number[]) => Tensor.from(values, { dtype: 'int32', shape, device });
  const table = { dtype: 'float32', shape: [together, 8], device } as const;
  const tables = { params: Tensor.from(params, table), intParams: ints(intParams, [together, 8]) };
  const seen = ints(
    Int32Array.from({ length: together * words }, (_, i) => (i % words) * 2654435761),
    [together, words],
  );
  const sampled = async (of: Tensor<'float32'>, first: number) => {
    const count = of.shape[0]!;
    const rows = ints(
      Int32Array.from({ length: count }, (_, n) => n % together),
      [count],
    );
    const positions = ints(
      Int32Array.from({ length: count }, (_, n) => first + n),
      [count],
    );
    const { token, logprob } = sample({ logits: of, rows, positions, seen, ...tables });
    return [[...(await token.read())], [...(await logprob.read())]] as const;
  };
  const rows = Int32Array.from({ length: together * times }, (_, n) => n % together);
  const [tokens, logprobs] = await sampled(gatherRows({ x: logits, rows: ints(rows, [rows.length]) }), 0);
  for (let time = 0; time < times; time++) {
    const [wanted, wantedLogprobs] = await sampled(logits, time * together);
    expect(tokens.slice(time * together, (time + 1) * together)).toEqual(wanted);
    expect(logprobs.slice(time * together, (time + 1) * together)).toEqual(wantedLogprobs);
  }
});
