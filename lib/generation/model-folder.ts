// What a model folder says of itself in config.json and in the headers of its weights: no weight is read.
import { promises as fs } from 'node:fs';
import { linattnError, shown } from '../errors';
import { Config } from '../model/config';
import { familyOf } from '../model/families';
import type { Plan } from '../model/families/family';
import { readCheckpoint, type StoredTensor } from '../model/safetensors';
import { WeightCheck } from '../model/weights';
import type { WeightDType } from '../ops/weight';
import { type DeviceName, deviceOf, modelDevice } from '../tensor/device';
import type { DType } from '../tensor/dtype';
import type { ModelInfo } from './model';

export interface ModelFolder {
  readonly config: Config;
  readonly plan: Plan;
  readonly stored: ReadonlyMap<string, StoredTensor>;
  /** Of the tensors that the model reads. */
  readonly weightBytes: number;
  readonly dtype: WeightDType;
  /** Of the keys and values of softmax layers. */
  readonly kvDType: DType;
  readonly info: ModelInfo;
}

const dtypes = ['auto', 'float32', 'float16', 'bfloat16', 'int8'] as const;

/**
 * @param options of `load`; `device` and `dtype` choose between what the folder allows
 * @throws LinattnError ERR_ARGUMENT, ERR_DEVICE, ERR_FILE, ERR_SAFETENSORS, ERR_MODEL_UNSUPPORTED, ERR_WEIGHTS
 */
export async function readModelFolder(
  folder: string,
  options: { readonly device?: DeviceName | 'auto'; readonly dtype?: 'auto' | WeightDType } = {},
): Promise<ModelFolder> {
  const { dtype: asked = 'auto' } = options;
  if (!dtypes.includes(asked)) {
    throw linattnError('ERR_ARGUMENT', `load: dtype must be ${dtypes.join(', ')}, got ${shown(asked)}`);
  }
  const device = chooseDevice(options.device);
  const isFolder = await fs.stat(folder).then(
    (found) => found.isDirectory(),
    () => false,
  );
  if (!isFolder) throw linattnError('ERR_FILE', `load: model must be a folder, ${folder || "''"} is not`);
  const config = await Config.read(folder);
  const plan = familyOf(config).read(config);
  const stored = await readCheckpoint(folder);
  const check = new WeightCheck(folder, stored);
  const { state, kv, vocabularySize } = await plan.build(check);
  check.finish(plan.ignored);
  const dtype = asked === 'auto' ? check.dominantDType() : asked;
  const kvDType = dtype === 'float32' || dtype === 'float16' ? dtype : 'bfloat16';
  const windows = kv.groups.filter(({ window }) => window > 0);
  const growing = kv.groups.filter(({ window }) => window === 0);
  const info = {
    family: plan.family,
    device,
    dtype,
    parameters: check.parameters,
    vocabularySize,
    stateBytes: state.bytes + windows.reduce((bytes, group) => bytes + group.window * group.bytesPerToken(kvDType), 0),
    kvBytesPerToken: growing.reduce((bytes, group) => bytes + group.bytesPerToken(kvDType), 0),
  };
  return { config, plan, stored, weightBytes: check.bytes, dtype, kvDType, info };
}

const chooseDevice = (asked: DeviceName | 'auto' = 'auto'): DeviceName =>
  deviceOf(asked === 'auto' ? modelDevice() : asked).name;
