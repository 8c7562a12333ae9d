// How a model's scheduler shares the device between sequences: the options of `load`, and their defaults.
import { linattnError } from '../errors';
import { pageTokens } from '../layers/layer';
import type { DeviceName } from '../tensor/device';
import { sliceTokensOf } from './scheduler';

export interface SchedulingOptions {
  /** Most prompt tokens of one step, of all prompts that it reads together. A multiple of 64. Default 512, on CUDA 4096. */
  stepTokens?: number;
  /** Milliseconds that reading prompts may hold up the sequences that decode, as nearly as 64 tokens allow. Default 50. */
  targetStepMs?: number;
  /** Calls of `model.generate` that may wait for a sequence; one more is ERR_QUEUE_FULL. Default 1024. */
  maxQueued?: number;
}

export type Scheduling = Required<SchedulingOptions>;

const mostStepTokens = 2 ** 16;

/** The options with their defaults. @throws LinattnError ERR_ARGUMENT */
export function schedulingOf(options: SchedulingOptions, device: DeviceName): Scheduling {
  const { stepTokens = sliceTokensOf(device), targetStepMs = 50, maxQueued = 1024 } = options;
  const check = (holds: boolean, message: string) => {
    if (!holds) throw linattnError('ERR_ARGUMENT', `load: scheduling.${message}`);
  };
  const isStep = stepTokens > 0 && stepTokens <= mostStepTokens && stepTokens % pageTokens === 0;
  check(isStep, `stepTokens must be a multiple of ${pageTokens} up to ${mostStepTokens}, got ${stepTokens}`);
  check(targetStepMs > 0, `targetStepMs must be a number above 0, got ${targetStepMs}`);
  check(Number.isSafeInteger(maxQueued) && maxQueued >= 0, `maxQueued must be a whole number >= 0, got ${maxQueued}`);
  return { stepTokens, targetStepMs, maxQueued };
}
