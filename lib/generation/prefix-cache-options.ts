// The options of a prefix cache, and what they mean in states of a model.
import type { PrefixStore } from '../cache/prefix-store';
import { linattnError, shown } from '../errors';
import { type KvLayout, pageTokens, type StateLayout } from '../layers/layer';
import { type DType, dtypeBytes } from '../tensor/dtype';

export interface PrefixCacheOptions {
  /** A state is kept at least every so many tokens of a prompt. Default 8192. */
  everyTokens?: number;
  /**
   * Memory on the device beside that of sessions, for states with their windows and logits. Default 256 MiB, or ten
   * states where that is more. Keys and values of layers that keep every token lie in the sessions' pool, as long as no
   * session needs their place.
   */
  deviceBytes?: number;
  /** Memory of the process for states that had to leave the device. Default 512 MiB. */
  hostBytes?: number;
  /** Keeps states for longer than the model, and for other processes. */
  store?: PrefixStore;
  /** Called when the store fails or gives no answer, which costs a miss and nothing else. */
  onStoreError?: (error: unknown) => void;
}

export interface PrefixCacheSettings extends PrefixCacheOptions {
  readonly everyTokens: number;
  readonly hostBytes: number;
  /** States on the device. */
  readonly states: number;
}

/** States that leave the device, one on its way to the host and one to the store, still have their slots. */
export const leavingStates = 2;
const mostStates = 1024;

/** ERR_ARGUMENT names what is wrong; what the device can hold is seen by `prefixCacheSettings`. */
export function checkPrefixCache(options: PrefixCacheOptions): void {
  const wrong = (message: string) => {
    throw linattnError('ERR_ARGUMENT', `load: prefixCache.${message}`);
  };
  if (typeof options !== 'object' || options === null) {
    throw linattnError('ERR_ARGUMENT', `load: prefixCache must be an object, got ${shown(options)}`);
  }
  const least = { everyTokens: 64, deviceBytes: 0, hostBytes: 0 };
  for (const [name, from] of Object.entries(least)) {
    const value = options[name as keyof typeof least];
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= from)) {
      wrong(`${name} must be a whole number of at least ${from}, got ${shown(value)}`);
    }
  }
  const { store, onStoreError } = options;
  for (const method of ['get', 'set', 'delete', 'keys'] as const) {
    if (store !== undefined && typeof store?.[method] !== 'function') wrong(`store must have a method ${method}`);
  }
  if (onStoreError !== undefined && typeof onStoreError !== 'function') wrong('onStoreError must be a function');
}

/** Bytes of a state on the device, with its windows and its logits. */
export function cachedStateBytes(state: StateLayout, kv: KvLayout, kvDType: DType, vocabularySize: number): number {
  const windows = kv.groups
    .filter(({ window }) => window > 0)
    .map((group) => (Math.ceil(group.window / pageTokens) + 1) * group.pageElements * dtypeBytes(kvDType));
  return windows.reduce((sum, bytes) => sum + bytes, (state.elements + vocabularySize) * 4);
}

export function prefixCacheSettings(options: PrefixCacheOptions, stateBytes: number): PrefixCacheSettings {
  const { everyTokens = 8192, deviceBytes = Math.max(2 ** 28, 10 * stateBytes), hostBytes = 2 ** 29 } = options;
  const states = Math.min(Math.floor(deviceBytes / stateBytes), mostStates) - leavingStates;
  if (states < 2) {
    const least = (2 + leavingStates) * stateBytes;
    throw linattnError(
      'ERR_ARGUMENT',
      `load: prefixCache.deviceBytes must be at least ${least}, four states of this model, got ${deviceBytes}`,
    );
  }
  return { ...options, everyTokens, hostBytes, states };
}
