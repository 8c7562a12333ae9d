// How a sequence wants its tokens chosen, and the rows of the two tables that tell the device.
import { checkOptions, LinattnError, shown } from '../errors';

export interface Sampling {
  /** 0: always the token of the greatest score, the lowest id among equals. Default 1. */
  temperature?: number;
  /** Keep the k greatest scores, and those equal to the least of them; 0 = all. Default 0. */
  topK?: number;
  /** Keep the smallest set of most probable tokens that reaches this probability; 1 = all. Default 1. */
  topP?: number;
  /** Drop tokens less probable than this times the most probable one; 0 = none. Default 0. */
  minP?: number;
  /** Scores of tokens seen before are divided by it when positive, else multiplied; 1 = off. Default 1. */
  repetitionPenalty?: number;
  /** A whole number below 2^53. Default 0. */
  seed?: number;
  /** Choose only among the tokens of the slot's row of `allowed`. Default false. */
  restricted?: boolean;
}

/** Values a slot in each of the two tables: float32 [slots, 8] and int32 [slots, 8]. */
export const samplingRow = 8;

/** A number that a setting may be, and what to call those that it may. */
export interface NumberRule {
  readonly holds: (value: number) => boolean;
  readonly wanted: string;
}

const within = (least: number, most: number, wanted: string): NumberRule => ({
  holds: (x) => x >= least && x <= most,
  wanted,
});
const whole = (below: number, wanted: string): NumberRule => ({
  holds: (x) => Number.isSafeInteger(x) && x >= 0 && x < below,
  wanted,
});

/** Of the numbers of a Sampling, whoever gives them. */
export const samplingRules = {
  temperature: within(0, 1e6, 'a number from 0 to 1e6'),
  topK: whole(2 ** 31, 'a whole number from 0 to 2^31 - 1'),
  topP: within(0, 1, 'a number from 0 to 1'),
  minP: within(0, 1, 'a number from 0 to 1'),
  repetitionPenalty: within(1e-6, 1e6, 'a number from 1e-6 to 1e6'),
  seed: whole(2 ** 53, 'a whole number from 0 to 2^53 - 1'),
} as const;

/**
 * The rows of a slot, laid out as native/ops/sampling-table.h: params float32 (temperature, topP, minP,
 * repetitionPenalty, four reserved), intParams int32 (topK, low and high half of the seed, restricted, four reserved).
 * @throws LinattnError ERR_ARGUMENT, naming the option
 */
export function encodeSampling(sampling: Sampling): { params: Float32Array; intParams: Int32Array } {
  checkOptions('sampling', sampling);
  const {
    temperature = 1,
    topK = 0,
    topP = 1,
    minP = 0,
    repetitionPenalty = 1,
    seed = 0,
    restricted = false,
  } = sampling;
  const values = { temperature, topK, topP, minP, repetitionPenalty, seed };
  for (const [name, { holds, wanted }] of Object.entries(samplingRules)) {
    const value: unknown = values[name as keyof typeof values];
    if (typeof value === 'number' && holds(value)) continue;
    throw new LinattnError('ERR_ARGUMENT', `sampling: ${name} must be ${wanted}, got ${shown(value)}`);
  }
  if (typeof restricted !== 'boolean') {
    throw new LinattnError('ERR_ARGUMENT', `sampling: restricted must be true or false, got ${shown(restricted)}`);
  }
  return {
    params: Float32Array.of(temperature, topP, minP, repetitionPenalty, 0, 0, 0, 0),
    intParams: Int32Array.of(topK, seed % 2 ** 32, Math.floor(seed / 2 ** 32), restricted ? 1 : 0, 0, 0, 0, 0),
  };
}

/** Words a slot of the tables with a bit a token (`seen`, `allowed`): token i is bit i % 32 of word i / 32. */
export const tokenWords = (vocab: number): number => Math.ceil(vocab / 32);
