// The fixed decays of lightning attention (https://arxiv.org/abs/2401.04658), of which three formulas are in use.
import { checkOptions, linattnError, shown } from '../errors';
import { alibiSlopes } from './alibi';

/**
 * minimax: transformers models/minimax; fla: flash-linear-attention fla/ops/lightning_attn; ring: Ring-linear, as mlx-lm
 * has it in models/bailing_moe_linear.py.
 */
export const lightningFormulas = ['minimax', 'fla', 'ring'] as const;
export type LightningFormula = (typeof lightningFormulas)[number];

/**
 * Natural logarithms of the decays of each head, for a decay per head of linearAttention. With layer l of L and head h of H:
 *
 * - minimax: -2^(-8 (h + 1) / H) (1 - l / (L - 1 + 1e-5) + 1e-5)
 * - fla: -(8 / H) (1 - l / L) h, so head 0 forgets nothing
 * - ring: -alibiSlopes(H)[h] (1 - max(0, l - 1) / max(1, L - 1) + 1e-5)
 * @throws LinattnError ERR_ARGUMENT
 */
export function lightningDecays(
  formula: LightningFormula,
  sizes: { heads: number; layer: number; layers: number },
): number[] {
  checkOptions('lightningDecays', sizes);
  const { heads, layer, layers } = sizes;
  const whole = [heads, layer, layers].every((value) => Number.isSafeInteger(value) && value >= 0);
  if (!whole || heads < 1 || layer >= layers) {
    throw linattnError(
      'ERR_ARGUMENT',
      `lightningDecays: heads must be a whole number from 1, and layer one of 0 to layers - 1; got heads ${shown(heads)}, layer ${shown(layer)} of ${shown(layers)}`,
    );
  }
  const each = (decay: (h: number) => number) => Array.from({ length: heads }, (_, h) => decay(h));
  switch (formula) {
    case 'minimax': {
      const factor = 1 - layer / (layers - 1 + 1e-5) + 1e-5;
      return each((h) => -(2 ** ((-8 * (h + 1)) / heads)) * factor);
    }
    case 'fla':
      return each((h) => -(8 / heads) * (1 - layer / layers) * h);
    case 'ring': {
      const slopes = alibiSlopes(heads);
      const factor = 1 - Math.max(0, layer - 1) / Math.max(1, layers - 1) + 1e-5;
      return each((h) => -slopes[h]! * factor);
    }
    default:
      throw linattnError(
        'ERR_ARGUMENT',
        `lightningDecays: formula must be ${lightningFormulas.join(' or ')}, got ${shown(formula)}`,
      );
  }
}
