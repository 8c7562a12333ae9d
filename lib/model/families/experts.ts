// Experts as checkpoints have them: one tensor for all, [experts, out, in], or tensors for each.
import { linattnError } from '../../errors';
import type { Weight } from '../../ops/weight';
import type { Config } from '../config';
import type { WeightSource } from '../weights';

export interface ExpertSizes {
  readonly hidden: number;
  /** Of an expert. */
  readonly inner: number;
  readonly experts: number;
  /** Experts of a token. */
  readonly chosen: number;
}

/** ERR_MODEL_UNSUPPORTED for sizes that do not fit; `names` are those of the config. */
export function checkExperts(
  config: Config,
  { hidden, inner, experts, chosen }: ExpertSizes,
  names: Record<'inner' | 'chosen', string>,
): void {
  if (chosen > experts) throw config.bad(names.chosen, `at most the ${experts} experts`, chosen);
  for (const [name, width] of Object.entries({ [names.inner]: inner, hidden_size: hidden })) {
    if (width % 32 === 0) continue;
    throw linattnError('ERR_MODEL_UNSUPPORTED', `${config.where}: ${name} must be a multiple of 32, got ${width}`);
  }
}

/** Tensors that hold all experts: the stacked gate and up, and down. */
export async function stackedExperts(
  source: WeightSource,
  { hidden, inner, experts }: ExpertSizes,
  names: { gateUp: string; down: string },
): Promise<{ gateUp: Weight; down: Weight }> {
  const stacked = (name: string, out: number, inputs: number) =>
    source.linear([{ name, out: experts * out, stored: [experts, out, inputs] }], inputs);
  return {
    gateUp: await stacked(names.gateUp, 2 * inner, hidden),
    down: await stacked(names.down, hidden, inner),
  };
}

/** `name`<expert>.{gate,up,down}_proj.weight, or what these three are called. */
export async function separateExperts(
  source: WeightSource,
  { hidden, inner, experts }: ExpertSizes,
  name: string,
  called = { gate: 'gate_proj', up: 'up_proj', down: 'down_proj' },
): Promise<{ gateUp: Weight; down: Weight }> {
  const each = (parts: readonly string[], out: number) =>
    Array.from({ length: experts }, (_, e) => parts.map((part) => ({ name: `${name}${e}.${part}.weight`, out })));
  return {
    gateUp: await source.linear(each([called.gate, called.up], inner).flat(), hidden),
    down: await source.linear(each([called.down], hidden).flat(), inner),
  };
}
