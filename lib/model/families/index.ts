// Every family, by the model_type of its configs.
import { linattnError } from '../../errors';
import type { Config } from '../config';
import { deltaNet } from './delta-net';
import type { Family } from './family';
import { gatedDeltaNet } from './gated-deltanet';
import { gla, retnet } from './gla';
import { graniteMoeHybrid } from './granite-moe-hybrid';
import { gsa } from './gsa';
import { hgrn2 } from './hgrn2';
import { kda } from './kda';
import { mamba2 } from './mamba2';
import { minimax } from './minimax';
import { qwen35 } from './qwen3-5';
import { rwkv7 } from './rwkv7';
import { xlstm } from './xlstm';

export const families: readonly Family[] = [
  deltaNet,
  gatedDeltaNet,
  gla,
  graniteMoeHybrid,
  gsa,
  hgrn2,
  kda,
  mamba2,
  minimax,
  qwen35,
  retnet,
  rwkv7,
  xlstm,
];

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
