// Public exports, nothing else.
/// <reference types="node" preserve="true" />
export { DirectoryStore } from './cache/directory-store';
export { MemoryStore } from './cache/memory-store';
export type { PrefixStore } from './cache/prefix-store';
export { type RedisClient, RedisStore, type RedisStoreOptions } from './cache/redis-store';
export { type ErrorCode, LinattnError } from './errors';
export type { EmbedInput } from './generation/embed';
export type { Chunk, GenerateResult, Generation } from './generation/generation';
export type { GenerateOptions, Input, PrefillOptions } from './generation/input';
export { type LoadOptions, load } from './generation/load';
export type { SnapshotSource } from './generation/load-snapshot';
export type { Model, ModelInfo } from './generation/model';
export type { PrefixCacheOptions } from './generation/prefix-cache-options';
export type { PrefixCacheStats } from './generation/prefix-cache-stats';
export type { SchedulingOptions } from './generation/scheduling';
export type { Session } from './generation/session';
export type { SerializeOptions, Snapshot } from './generation/snapshot';
export type { PrefillUsage, Usage } from './generation/usage';
export { alibiSlopes } from './layers/alibi';
export {
  BlockCausalLinformer,
  type BlockCausalLinformerOptions,
} from './layers/block-causal-linformer';
export type { BlockCausalDType, BlockCausalSequence } from './layers/block-causal-sequence';
export type { FavorMap, HeadProjection, LayerFeatureMap } from './layers/feature-maps';
export { type LightningFormula, lightningDecays } from './layers/lightning-decay';
export {
  LinearAttention,
  type LinearAttentionCall,
  type LinearAttentionMemory,
  type LinearAttentionOptions,
} from './layers/linear-attention';
export type {
  LinearAttentionState,
  LinearAttentionStateSizes,
  SavedLinearAttentionState,
} from './layers/linear-attention-state';
export {
  Linformer,
  type LinformerMemory,
  type LinformerMemorySizes,
  type LinformerOptions,
  type LinformerTokens,
} from './layers/linformer';
export { t5RelativeBias } from './layers/relative-bias';
export {
  WindowedLinearAttention,
  type WindowedLinearAttentionOptions,
  type WindowedLinearSequence,
} from './layers/windowed-linear-attention';
export * as ops from './ops';
export { type Device, type DeviceName, devices, type Graph } from './tensor/device';
export type { DType, DTypes } from './tensor/dtype';
export { scope } from './tensor/scope';
export { Tensor } from './tensor/tensor';
export type { Message, Progress, Tokenizer } from './tokenizer/tokenizer';
