// The constant-size states of a model: a slot-major pool, one contiguous row a state. Slots are handed out and given back
// here; which of them a sequence reads and writes stands in the step table on the device.
import { addon, checked } from '../binding/load';
import { linattnError } from '../errors';
import type { StateLayout } from '../layers/layer';
import { type DeviceName, deviceIndex } from '../tensor/device';
import { Tensor } from '../tensor/tensor';
import { copySlot } from './copy-slot';

export class StatePool {
  private readonly tensor: Tensor<'float32'>;
  private readonly free: number[];

  constructor(
    layout: StateLayout,
    slots: number,
    private readonly device: DeviceName,
  ) {
    this.tensor = Tensor.make({ dtype: 'float32', shape: [slots, layout.elements], device }, true, true);
    this.free = Array.from({ length: slots }, (_, i) => slots - 1 - i);
    layout.bind(this.tensor);
  }

  /** Takes the memory now: rejects with ERR_OUT_OF_MEMORY when there is not enough. */
  async reserveMemory(): Promise<void> {
    const first = this.tensor.view([1], 0, 1);
    await first.read().finally(() => first.dispose());
  }

  get slotBytes(): number {
    return this.tensor.shape[1]! * 4;
  }

  /** Slots that nobody has. */
  get vacant(): number {
    return this.free.length;
  }

  /** A slot whose content is undefined. ERR_OUT_OF_MEMORY when all are taken. */
  take(): number {
    const slot = this.free.pop();
    if (slot === undefined) {
      throw linattnError(
        'ERR_OUT_OF_MEMORY',
        `state: all ${this.tensor.shape[0]} states are in use; raise maxSequences`,
      );
    }
    checked(addon.charge(deviceIndex(this.device), this.slotBytes));
    return slot;
  }

  /** Two slots, or none. */
  takeTwo(): [number, number] {
    const first = this.take();
    try {
      return [first, this.take()];
    } catch (error) {
      this.give(first);
      throw error;
    }
  }

  give(slot: number): void {
    this.free.push(slot);
    checked(addon.charge(deviceIndex(this.device), -this.slotBytes));
  }

  /** Enqueues a copy of one state to another slot. */
  copy(from: number, to: number): void {
    copySlot(this.tensor, from, to);
  }

  /** The row of a slot, [elements]. */
  async read(slot: number): Promise<Float32Array> {
    const elements = this.tensor.shape[1]!;
    const row = this.tensor.view([elements], slot * elements, 1);
    return row.read().finally(() => row.dispose());
  }

  /** Enqueues the write of a whole row. */
  write(slot: number, row: Float32Array): void {
    this.tensor.write(row, slot * this.tensor.shape[1]!);
  }

  /** Reads a row from `offset` (bytes) on into `target`, whole elements. */
  async readPart(slot: number, offset: number, target: Uint8Array): Promise<void> {
    const part = this.tensor.view([target.length / 4], (slot * this.slotBytes + offset) / 4, 1);
    await part.readInto(target).finally(() => part.dispose());
  }

  /** Enqueues the write of a row from `offset` (bytes) on; `content` stays as it is until this resolves. */
  writePart(slot: number, offset: number, content: Uint8Array): Promise<void> {
    return this.tensor.writeHeld(content, slot * this.slotBytes + offset);
  }

  dispose(layout: StateLayout): void {
    for (const part of layout.parts) part.tensor.dispose();
    this.tensor.dispose();
  }
}
