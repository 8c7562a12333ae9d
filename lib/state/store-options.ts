// What the sizes of a model's pools and tables follow from.
import type { DeviceName } from '../tensor/device';
import type { DType } from '../tensor/dtype';

export interface StoreOptions {
  readonly device: DeviceName;
  readonly sequences: number;
  /** Of stateSlots(). */
  readonly states: number;
  readonly vocabularySize: number;
  readonly contextLength: number;
  readonly stepTokens: number;
  readonly kvDType: DType;
  readonly kvCapacityTokens: number;
}
