import { type RouteOptions, route, routeReference } from '../../lib/ops/route';
import { nd } from '../../lib/ops/reference';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, relativeError, rounded, seeded, tensorOf, ulp } from '../support/arrays';
import { errorOf, expectClose, floats, rowsOf, spread } from '../support/close';
import { readGolden } from '../support/golden';

const cases: [T: number, E: number, biased: boolean, options: RouteOptions][] = [
  [0, 4, false, { count: 2, score: 'softmax', renormalise: true }],
  [1, 1, false, { count: 1, score: 'softmax', renormalise: false }],
  [5, 7, false, { count: 7, score: 'softmax', renormalise: true }],
  [40, 64, false, { count: 6, score: 'softmax', renormalise: true }],
  [3, 512, false, { count: 10, score: 'softmax', renormalise: false }],
  [20, 256, true, { count: 8, score: 'sigmoid', renormalise: true, scale: 2.446 }],
  [20, 33, false, { count: 3, score: 'sigmoid', renormalise: false }],
];

describe.each(floats)('%s', (dtype) => {
  test.each(cases)('%i tokens, %i experts, bias %s, %j', async (T, E, biased, options) => {
    const { normal } = seeded(T + E);
    const logits = normal([T, E], 2);
    const bias = biased ? rounded(normal([E], 0.3), 'float32') : undefined;
    const { ids, weights } = route({
      logits: spread(logits, dtype, 3),
      bias: bias && tensorOf(bias, 'float32'),
      ...options,
    });
    // Of 16-bit logits some are equal: the first expert wins in both.
    const exact = routeReference({ logits: rounded(logits, dtype), bias }, options);
    expect((await readNd(ids)).data).toEqual(exact.ids.data);
    expectClose(await readNd(weights), exact.weights, 'float32');
  });
});

test.each(['softmax_renormalised', 'softmax_plain', 'sigmoid_renormalised', 'sigmoid_plain'] as const)(
  'the routers of transformers (Qwen3-MoE, DeepSeek-V3 with its correction bias): %s',
  async (name) => {
    const golden = readGolden('mechanisms/routers');
    const array = (part: string) => {
      const { shape, data } = golden.float32(`${name}.${part}`);
      return nd(shape, data);
    };
    const score = name.startsWith('softmax') ? 'softmax' : 'sigmoid';
    const { ids, weights } = route({
      logits: tensorOf(array('logits'), 'float32'),
      bias: score === 'sigmoid' ? tensorOf(array('bias'), 'float32') : undefined,
      count: 5,
      score,
      renormalise: name.endsWith('renormalised'),
      scale: score === 'sigmoid' ? 2.5 : 1,
    });
    const theirs = array('weights');
    const ours = nd(theirs.shape);
    const [chosen, values] = [await readNd(ids), await readNd(weights)];
    chosen.data.forEach((expert, i) => {
      ours.data[Math.floor(i / 5) * theirs.shape[1]! + expert] = values.data[i]!;
    });
    expect([...ours.data].map((weight) => weight > 0)).toEqual([...theirs.data].map((weight) => weight > 0));
    expect(relativeError(ours, theirs)).toBeLessThanOrEqual(8 * ulp.float32);
  },
);

test('a token goes where it goes whatever its company', async () => {
  const logits = seeded(3).normal([50, 60]);
  const options = { count: 4, score: 'softmax', renormalise: true } as const;
  const run = async (begin: number, end: number) => {
    const out = route({ logits: tensorOf(rowsOf(logits, begin, end), 'float32'), ...options });
    return [await readNd(out.ids), await readNd(out.weights)] as const;
  };
  const whole = await run(0, 50);
  const part = await run(17, 23);
  part.forEach((array, i) => {
    expect(array).toEqual(rowsOf(whole[i]!, 17, 23));
  });
});

test('NaN comes last, and experts are always some and different', async () => {
  const logits = Tensor.from([Number.NaN, 1, Number.NaN, 2], { dtype: 'float32', shape: [1, 4] });
  for (const score of ['softmax', 'sigmoid'] as const) {
    const { ids } = route({ logits, count: 3, score, renormalise: true });
    const chosen = [...(await ids.read())];
    expect(new Set(chosen).size).toBe(3);
    expect(chosen.every((id) => id >= 0 && id < 4)).toBe(true);
    if (score === 'sigmoid') expect(chosen.slice(0, 2)).toEqual([3, 1]);
  }
});

test('errors', () => {
  const logits = Tensor.zeros({ dtype: 'float32', shape: [2, 4] });
  const good = { logits, count: 2, score: 'softmax', renormalise: true } as const;
  const call = (change: object) => errorOf(() => route({ ...good, ...change }));
  expect(call({ count: 5 })).toMatchObject({ code: 'ERR_ARGUMENT', op: 'route' });
  expect(call({ count: 0 })).toMatchObject({ code: 'ERR_ARGUMENT' });
  expect(call({ score: 'tanh' })).toMatchObject({ code: 'ERR_ARGUMENT' });
  expect(call({ scale: Number.NaN })).toMatchObject({ code: 'ERR_ARGUMENT' });
  expect(call({ bias: Tensor.zeros({ dtype: 'float32', shape: [3] }) })).toMatchObject({ code: 'ERR_SHAPE' });
  expect(call({ logits: Tensor.zeros({ dtype: 'int32', shape: [2, 4] }) })).toMatchObject({ code: 'ERR_DTYPE' });
});
