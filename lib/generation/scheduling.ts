// How a model's scheduler shares the device between sequences: the options of `load`, and their defaults.
import { linattnError, shown } from '../errors';
import { pageTokens } from '../layers/layer';
import type { DeviceName } from '../tensor/device';
import { sliceTokensOf } from './scheduler';

export interface SchedulingOptions {
  /** Most prompt tokens of one step, of all prompts that it reads together. A multiple of 64. Default 512, on CUDA 16384. */
  stepTokens?: number;
  /** Milliseconds that reading prompts may hold up the sequences that decode, as nearly as 64 tokens allow. Default 50. */
  targetStepMs?: number;
  /** Calls of `model.generate` that may wait for a sequence; one more is ERR_QUEUE_FULL. Default 1024. */
  maxQueued?: number;
}

export interface Scheduling extends Required<SchedulingOptions> {
  /**
   * Deterministic on a GPU: prompts are cut at the multiples of so many tokens, whoever shares the step, and steps use
   * kernels whose sums for a row do not depend on the other rows. Otherwise prompts are cut where a step is full.
   */
  readonly pieceTokens: number | undefined;
}

const mostStepTokens = 2 ** 16;
const deterministicPiece = 512;

/** The options with their defaults. @throws LinattnError ERR_ARGUMENT */
export function schedulingOf(options: SchedulingOptions = {}, device: DeviceName, deterministic: boolean): Scheduling {
  if (typeof options !== 'object' || options === null) {
    throw linattnError('ERR_ARGUMENT', `load: scheduling must be an object, got ${shown(options)}`);
  }
  const { stepTokens = sliceTokensOf(device), targetStepMs = 50, maxQueued = 1024 } = options;
  const check = (holds: boolean, message: string) => {
    if (!holds) throw linattnError('ERR_ARGUMENT', `load: scheduling.${message}`);
  };
  const isStep =
    Number.isSafeInteger(stepTokens) && stepTokens > 0 && stepTokens <= mostStepTokens && stepTokens % pageTokens === 0;
  check(isStep, `stepTokens must be a multiple of ${pageTokens} up to ${mostStepTokens}, got ${shown(stepTokens)}`);
  check(
    typeof targetStepMs === 'number' && targetStepMs > 0,
    `targetStepMs must be a number above 0, got ${shown(targetStepMs)}`,
  );
  check(
    Number.isSafeInteger(maxQueued) && maxQueued >= 0,
    `maxQueued must be a whole number >= 0, got ${shown(maxQueued)}`,
  );
  // On the cpu all kernels and cuts are so.
  const pieceTokens = deterministic && device !== 'cpu' ? Math.min(deterministicPiece, stepTokens) : undefined;
  return { stepTokens, targetStepMs, maxQueued, pieceTokens };
}
