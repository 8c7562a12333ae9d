// What linearAttention refuses, at the call and when it runs.
import { type LinearAttention, linearAttention } from '../../lib/ops/linear-attention';
import { sequences } from '../../lib/ops/sequences';
import type { DType } from '../../lib/tensor/dtype';
import { Tensor } from '../../lib/tensor/tensor';

describe('refuses', () => {
  const zeros = (...shape: number[]) => Tensor.zeros({ dtype: 'float32', shape });
  const of = (dtype: DType, ...shape: number[]) => Tensor.zeros({ dtype, shape });
  const base = (): LinearAttention & { q?: Tensor } => ({
    q: zeros(4, 2, 8),
    k: zeros(4, 2, 8),
    v: zeros(4, 2, 16),
    rule: { name: 'additive' },
    state: zeros(3, 2, 16, 8),
    sequences: sequences([4]),
  });
  const delta = { rule: { name: 'delta' as const, beta: zeros(4, 2) } };
  const absent = { k: undefined, v: undefined };
  const ints = (values: number[]) => Tensor.from(values, { dtype: 'int32', shape: [values.length] });
  const checkpoints = (every: number, slots: number[]) => ({ checkpoints: { every, slots: ints(slots) } });
  const run = (change: object) => linearAttention({ ...base(), ...change } as LinearAttention & { q: Tensor });

  test.each<[string, object, string, RegExp]>([
    ['k alone', { v: undefined }, 'ERR_ARGUMENT', /k and v go together/],
    ['nothing', { ...absent, q: undefined }, 'ERR_ARGUMENT', /q, or k and v, must be given/],
    ['nothing to do', { q: undefined, state: undefined }, 'ERR_ARGUMENT', /nothing to compute/],
    ['no state to read', { ...absent, state: undefined }, 'ERR_ARGUMENT', /there must be a state to read/],
    ['a rule to read', { ...absent, ...delta }, 'ERR_ARGUMENT', /without k and v the rule must be 'additive'/],
    ['whole numbers', { q: of('int32', 4, 2, 8) }, 'ERR_DTYPE', /q must be float32 or/],
    ['two dtypes', { k: of('bfloat16', 4, 2, 8) }, 'ERR_DTYPE', /k must be float32, got bfloat16/],
    ['another rank', { k: zeros(4, 16) }, 'ERR_SHAPE', /k must be \[T, Hk, K\], got \[4, 16\]/],
    ['another T', { v: zeros(5, 2, 16) }, 'ERR_SHAPE', /v must be \[T, Hv, V\] = \[4, 2, 16\], got \[5, 2, 16\]/],
    ['heads that do not divide', { k: zeros(4, 3, 8) }, 'ERR_SHAPE', /of Hk and Hv one must divide the other/],
    ['q heads that do not divide', { q: zeros(4, 3, 8) }, 'ERR_SHAPE', /of Hq and H one must divide .* got 3 and 2/],
    ['K = 12', { q: zeros(4, 2, 12), k: zeros(4, 2, 12) }, 'ERR_UNSUPPORTED', /K must be a multiple of 8 .* got 12/],
    ['V = 520', { v: zeros(4, 2, 520) }, 'ERR_UNSUPPORTED', /V must be a multiple of 8 from 8 to 512/],
    ['another beta', { rule: { name: 'delta', beta: zeros(4, 1) } }, 'ERR_SHAPE', /rule.beta must be \[T, H\]/],
    ['another a', { rule: { name: 'lowRank', a: zeros(4, 2, 9), b: zeros(4, 2, 8) } }, 'ERR_SHAPE', /rule.a/],
    ['an unknown rule', { rule: { name: 'gated' } }, 'ERR_ARGUMENT', /rule.name must be .* got 'gated'/],
    ['an unknown decay', { decay: { per: 'row', g: zeros(2) } }, 'ERR_ARGUMENT', /decay.per must be/],
    ['another g', { decay: { per: 'channel', g: zeros(4, 2, 16) } }, 'ERR_SHAPE', /decay.g must be \[T, H, K\]/],
    ['g of 16 bits', { decay: { per: 'token', g: of('bfloat16', 4, 2) } }, 'ERR_DTYPE', /decay.g must be float32/],
    [
      'decayed values of a delta rule',
      { ...delta, decay: { per: 'value', g: zeros(4, 2, 16) } },
      'ERR_ARGUMENT',
      /value/,
    ],
    [
      'a scale with normalize',
      { normalize: { eps: 0 }, scale: 2, keySum: zeros(3, 2, 8) },
      'ERR_ARGUMENT',
      /must be 1/,
    ],
    ['no keySum', { normalize: { eps: 0 } }, 'ERR_ARGUMENT', /normalize with a state needs its keySum/],
    ['a lone keySum', { state: undefined, keySum: zeros(3, 2, 8) }, 'ERR_ARGUMENT', /keySum goes with a state/],
    ['sums of a delta rule', { ...delta, denominator: true }, 'ERR_ARGUMENT', /need the rule 'additive'/],
    ['a negative eps', { normalize: { eps: -1 }, keySum: zeros(3, 2, 8) }, 'ERR_ARGUMENT', /eps must be 0 or more/],
    ['another state', { state: zeros(3, 2, 8, 16) }, 'ERR_SHAPE', /state must be \[slots, H, V, K\] = \[3, 2, 16, 8\]/],
    ['a state of 16 bits', { state: of('bfloat16', 3, 2, 16, 8) }, 'ERR_UNSUPPORTED', /state must be float32/],
    ['a scale that is no number', { scale: Number.NaN }, 'ERR_ARGUMENT', /scale must be a number/],
    ['checkpoints every 32', checkpoints(32, [2]), 'ERR_ARGUMENT', /every must be a multiple of 64, or 1/],
    ['checkpoints of no state', { state: undefined, ...checkpoints(64, []) }, 'ERR_ARGUMENT', /need a state/],
  ])('%s', (_, change, code, message) => {
    expect(() => run(change)).toThrow(
      expect.objectContaining({ code, op: 'linearAttention', message: expect.stringMatching(message) }),
    );
  });

  test.each<[string, object, RegExp]>([
    ['a slot that is not there', { readSlots: [3], writeSlots: [-1] }, /readSlots\[0\] must be in \[-1, 3\), got 3/],
    [
      'a checkpoint in the slot of the end',
      checkpoints(1, [1, 2, -1, 0]),
      /checkpoints.slots\[3\]: slot 0 is written twice/,
    ],
    ['too few checkpoints', checkpoints(1, [1]), /must have an entry for each of the 4 positions, got 1/],
    ['a checkpoint over a state that is read', { writeSlots: [1], ...checkpoints(1, [0, -1, -1, -1]) }, /checkpoints/],
  ])('when it runs: %s', async (_, change, message) => {
    const { checkpoints: kept, ...slots } = change as { checkpoints?: object };
    const made = run({ ...(kept && { checkpoints: kept }), sequences: sequences([4], slots) });
    await expect(made.out.read()).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
      op: 'linearAttention',
      message: expect.stringMatching(message),
    });
  });
});
