// Every family, by the model_type of its configs.
import { linattnError } from '../../errors';
import type { Config } from '../config';
import type { Family } from './family';
import { gatedDeltaNet } from './gated-deltanet';
import { qwen35 } from './qwen3-5';

export const families: readonly Family[] = [gatedDeltaNet, qwen35];

/** The family of a config; ERR_MODEL_UNSUPPORTED names its model_type and those that are known. */
export function familyOf(config: Config): Family {
  const type = config.get('string', 'model_type');
  const family = families.find((one) => one.modelTypes.includes(type));
  if (family !== undefined) return family;
  const known = families.flatMap((one) => one.modelTypes).join(', ');
  throw linattnError(
    'ERR_MODEL_UNSUPPORTED',
    `${config.where}: model_type ${JSON.stringify(type)} is not one of ${known}`,
  );
}
