import { machinePeak } from '../../lib/ops/machine-peak';
import { cpu } from '../../lib/tensor/device';
import { Tensor } from '../../lib/tensor/tensor';
import { onCuda } from '../support/device';

const peakOf = async (...args: Parameters<typeof machinePeak>) => (await machinePeak(...args).read())[0]!;

test('every peak is a rate that a machine can have', async () => {
  const values = Tensor.zeros({ dtype: 'float32', shape: [1 << 20] });
  expect(await peakOf('read', { values })).toBeGreaterThan(0.01);
  const adds = await peakOf('multiplyAdd');
  expect(adds).toBeGreaterThan(0.1);
  expect(adds).toBeLessThan(1e5);
  const dots = await peakOf('dotBFloat16');
  expect(dots > 0).toBe(onCuda || cpu().level === 'avx512bf16');
});

test('errors', () => {
  const values = Tensor.zeros({ dtype: 'float32', shape: [8] });
  const calls: [() => unknown, string][] = [
    [() => machinePeak('speed' as never), 'ERR_ARGUMENT'],
    [() => machinePeak('read'), 'ERR_ARGUMENT'],
    [() => machinePeak('multiplyAdd', { values }), 'ERR_ARGUMENT'],
    [() => machinePeak('read', { values: Tensor.zeros({ dtype: 'int32', shape: [8] }) as never }), 'ERR_DTYPE'],
  ];
  for (const [call, code] of calls) expect(call).toThrow(expect.objectContaining({ code }));
});
