// ALiBi (https://arxiv.org/abs/2108.12409): a score of a key i tokens back is lowered by slope * i.
import { linattnError, shown } from '../errors';

const geometric = (heads: number): number[] => Array.from({ length: heads }, (_, h) => 2 ** ((-8 * (h + 1)) / heads));

/**
 * The slopes of the published code: 2^(-8 (h + 1) / heads); for a number of heads that is no power of two those of the
 * power p below it, then every second one of 2 p. softmaxAttention takes them as alibiSlopes. In linear attention the
 * same bias is the decay -slope per head, of the state and of its normaliser.
 * @throws LinattnError ERR_ARGUMENT
 */
export function alibiSlopes(heads: number): number[] {
  if (!Number.isSafeInteger(heads) || heads < 1) {
    throw linattnError('ERR_ARGUMENT', `alibiSlopes: heads must be a whole number from 1, got ${shown(heads)}`);
  }
  const power = 2 ** Math.floor(Math.log2(heads));
  const between = geometric(2 * power).filter((_, h) => h % 2 === 0);
  return [...geometric(power), ...between.slice(0, heads - power)];
}
