// Opens a model folder as Hugging Face lays it out: config.json, safetensors, tokenizer.json, generation_config.json.
import { promises as fs } from 'node:fs';
import path from 'node:path';
import { checkOptions, linattnError, shown } from '../errors';
import { Config, readJson } from '../model/config';
import type { Plan } from '../model/families/family';
import { fingerprint } from '../model/fingerprint';
import { WeightLoader } from '../model/weights';
import type { Float } from '../ops/float';
import type { Sampling } from '../ops/sampling-table';
import type { WeightDType } from '../ops/weight';
import { pinned } from '../state/pin';
import { SequenceStore } from '../state/sequence-store';
import { stateSlots } from '../state/state-slots';
import { type DeviceName, deviceOf, fence, setThreads } from '../tensor/device';
import { allOrNone } from '../tensor/scope';
import { loadTokenizer, type Progress, type TextTokenizer } from '../tokenizer/tokenizer';
import { LoadedModel, type Model } from './model';
import { type GenerationDefaults, ModelCore } from './model-core';
import { type ModelFolder, readModelFolder } from './model-folder';
import { PrefixCache } from './prefix-cache';
import {
  cachedStateBytes,
  checkPrefixCache,
  leavingStates,
  type PrefixCacheOptions,
  prefixCacheSettings,
} from './prefix-cache-options';
import { Scheduler } from './scheduler';
import { type Scheduling, type SchedulingOptions, schedulingOf } from './scheduling';

export interface LoadOptions {
  /** A folder; without one, the default model of the package. */
  model?: string;
  /** auto: the first CUDA device, else cpu. */
  device?: DeviceName | 'auto';
  /**
   * Of the weights; auto: as stored. On the cpu activations are float32, rounded to bfloat16 where they meet
   * bfloat16 weights; on a GPU bfloat16 or float16, unless the weights are float32.
   */
  dtype?: 'auto' | WeightDType;
  /** Of the cpu device, which the process shares: the last call that names a number wins. */
  threads?: number;
  /** Sequences held at once. Default 16. */
  maxSequences?: number;
  /** Snapshots held at once. Default: as many as sequences, and at least 4. */
  maxSnapshots?: number;
  /**
   * The same bits in whatever company. So it always is on the cpu. On a GPU it is slower: prompts are read in pieces of
   * 512 tokens without cuBLASLt, and a decode step reads the weights once for every 16 sequences; the bits are those of
   * the same GPU and calls. ERR_UNSUPPORTED there with a prefixCache, which cuts prompts where other texts end.
   */
  deterministic?: boolean;
  /**
   * Sessions share the states of the texts that they have read: one that begins like an earlier text reads only the
   * rest. Default: none. docs/prefix-cache.md
   */
  prefixCache?: PrefixCacheOptions;
  /** How sequences share the device. */
  scheduling?: SchedulingOptions;
  signal?: AbortSignal;
  /** In bytes of the weights. */
  onProgress?: (progress: Progress) => void;
}

/** The folder of the model that the package ships. */
export const defaultModel = path.join(__dirname, '..', '..', 'models', 'default');

/**
 * Loads a model. Rejects with signal.reason when aborted, and then everything is freed. An option that is undefined is as
 * one that is left out; one that is null is refused.
 * @throws LinattnError ERR_ARGUMENT, ERR_FILE, ERR_SAFETENSORS, ERR_MODEL_UNSUPPORTED, ERR_WEIGHTS, ERR_TOKENIZER,
 *   ERR_DEVICE, ERR_UNSUPPORTED, ERR_OUT_OF_MEMORY
 */
export async function load(options: LoadOptions = {}): Promise<Model> {
  checkOptions('load', options, 'onProgress');
  const { model: folder = defaultModel, maxSequences = 16, signal } = options;
  check(typeof folder === 'string', `model must be a folder, got ${typeof folder}`);
  const { deterministic = false } = options;
  check(typeof deterministic === 'boolean', `deterministic must be true or false, got ${shown(deterministic)}`);
  const isCount = (value: number, least: number) => Number.isSafeInteger(value) && value >= least && value <= 4096;
  check(isCount(maxSequences, 1), `maxSequences must be a whole number from 1 to 4096, got ${shown(maxSequences)}`);
  const { maxSnapshots = Math.max(4, maxSequences) } = options;
  check(isCount(maxSnapshots, 0), `maxSnapshots must be a whole number from 0 to 4096, got ${shown(maxSnapshots)}`);
  if (options.prefixCache !== undefined) checkPrefixCache(options.prefixCache);
  signal?.throwIfAborted();
  const found = await readModelFolder(folder, options);
  const { device } = found.info;
  if (deterministic && options.prefixCache !== undefined && device !== 'cpu') {
    const reason = 'it cuts prompts where other texts end';
    throw linattnError(
      'ERR_UNSUPPORTED',
      `load: deterministic must be false with a prefixCache on ${device}: ${reason}`,
    );
  }
  const scheduling = schedulingOf(options.scheduling, device, deterministic);
  if (options.threads !== undefined) setThreads(options.threads);
  const defaults = await readGenerationConfig(folder, found.plan);
  const tokenizer = await openTokenizer(folder, signal);
  try {
    const mark = await fingerprint(found.config.fields, found.stored);
    const counts = { maxSequences, maxSnapshots };
    return await assemble({ options, folder, found, counts, scheduling, defaults, tokenizer, mark });
  } catch (error) {
    tokenizer?.dispose();
    throw error;
  }
}

function check(holds: boolean, message: string): void {
  if (!holds) throw linattnError('ERR_ARGUMENT', `load: ${message}`);
}

/** Of the activations: what the cpu computes in, and what the tensor cores of a GPU take. */
function activationsOf(device: DeviceName, weights: WeightDType): Float {
  if (device === 'cpu' || weights === 'float32') return 'float32';
  return weights === 'float16' ? 'float16' : 'bfloat16';
}

async function openTokenizer(folder: string, signal: AbortSignal | undefined): Promise<TextTokenizer | undefined> {
  const exists = await fs.access(path.join(folder, 'tokenizer.json')).then(
    () => true,
    () => false,
  );
  return exists ? loadTokenizer(folder, signal === undefined ? {} : { signal }) : undefined;
}

/** Sampling defaults and stop ids; a model without generation_config.json takes the most probable token. */
async function readGenerationConfig(folder: string, plan: Plan): Promise<GenerationDefaults> {
  const file = path.join(folder, 'generation_config.json');
  const json = await readJson(file, 'ERR_MODEL_UNSUPPORTED', true);
  if (json === undefined) return { sampling: { temperature: 0 }, stopIds: plan.stopIds };
  const config = new Config(file, json);
  const stopIds = [...new Set([...plan.stopIds, ...(config.numbers('eos_token_id') ?? [])])];
  if (!config.get('boolean', 'do_sample', false)) return { sampling: { temperature: 0 }, stopIds };
  const number = (name: string, fallback: number) => config.get('number', name, fallback);
  const sampling: Sampling = {
    temperature: number('temperature', 1),
    topK: number('top_k', 0),
    topP: number('top_p', 1),
    minP: number('min_p', 0),
    repetitionPenalty: number('repetition_penalty', 1),
  };
  return { sampling, stopIds };
}

/** Of the device's memory, for all states, and for keys and values of layers that keep every token. */
const [stateShare, kvShare] = [0.5, 0.25];
/** Of what weights and states leave; the rest is for what steps need. */
const kvShareOfRest = 0.5;

async function assemble(parts: {
  options: LoadOptions;
  folder: string;
  found: ModelFolder;
  counts: { readonly maxSequences: number; readonly maxSnapshots: number };
  scheduling: Scheduling;
  defaults: GenerationDefaults;
  tokenizer: TextTokenizer | undefined;
  /** The fingerprint. */
  mark: string;
}): Promise<Model> {
  const { options, folder, found, counts, scheduling, defaults, tokenizer, mark } = parts;
  const { plan, stored, weightBytes, dtype, kvDType, info } = found;
  const { device, vocabularySize, kvBytesPerToken } = info;
  const { signal, onProgress } = options;
  let done = 0;
  const onBytes = (bytes: number) => {
    done += bytes;
    onProgress?.({ done: Math.min(done, weightBytes), total: weightBytes });
  };
  const loader = new WeightLoader(stored, {
    device,
    dtype,
    activations: activationsOf(device, dtype),
    signal,
    onBytes,
  });
  try {
    const network = await plan.build(loader);
    await loader.finish();
    signal?.throwIfAborted();
    const { total, used } = deviceOf(device).memory();
    const cachedBytes = cachedStateBytes(network.state, network.kv, kvDType, network.vocabularySize);
    const cache = options.prefixCache && prefixCacheSettings(options.prefixCache, cachedBytes);
    const cached = cache === undefined ? 0 : cache.states + leavingStates;
    const slotBytes = network.state.elements * 4;
    const stateCounts = { sequences: counts.maxSequences, snapshots: counts.maxSnapshots, cached };
    const states = stateSlots(stateCounts, slotBytes, total * stateShare);
    const kvBytes = Math.min(total * kvShare, (total - used - states * slotBytes) * kvShareOfRest);
    const sizes = {
      device,
      sequences: counts.maxSequences,
      states,
      vocabularySize,
      contextLength: plan.contextLength,
      stepTokens: scheduling.stepTokens,
      kvDType,
      kvCapacityTokens: Math.max(0, Math.floor(kvBytes / Math.max(kvBytesPerToken, 1))),
    };
    const store = allOrNone(() => new SequenceStore(network.state, network.kv, sizes));
    await store.reserveMemory().catch((error: unknown) => {
      store.dispose();
      throw error;
    });
    const scheduler = new Scheduler(network, store, device, scheduling);
    const identity = { family: plan.family, dtype, fingerprint: mark };
    const limit = counts.maxSnapshots;
    const core = new ModelCore(folder, identity, scheduler, vocabularySize, limit, tokenizer, defaults);
    try {
      if (cache !== undefined) core.prefixCache = new PrefixCache(core, cache);
      if (cache?.store !== undefined) await pinned(device); // no call waits until the memory for its states is
    } catch (error) {
      scheduler.dispose();
      store.dispose();
      throw error;
    }
    const release = async () => {
      scheduler.dispose();
      store.dispose();
      loader.dispose();
      tokenizer?.dispose();
      await fence(device);
    };
    return new LoadedModel(info, core, release);
  } catch (error) {
    loader.dispose();
    throw error;
  }
}
