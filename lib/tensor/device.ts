// The devices of this process, and recorded command lists.
import { addon, checked, openCuda, request } from '../binding/load';
import { LinattnError, shown } from '../errors';

export type DeviceName = 'cpu' | 'cuda' | `cuda:${number}`;

/** Indices of devices that were asked for. */
const indices = new Map<string, number>([['cpu', 0]]);

/** Index of a device of this process. Throws ERR_DEVICE with the reason when it is missing. */
export function deviceIndex(name: DeviceName): number {
  const known = indices.get(name);
  if (known !== undefined) return known;
  const wrong = (why: string) => new LinattnError('ERR_DEVICE', `device: ${shown(name)} is not available: ${why}`);
  if (typeof name !== 'string' || !/^cuda(:\d+)?$/.test(name)) throw wrong("the names are 'cpu', 'cuda' and 'cuda:N'");
  const reason = openCuda();
  const wanted = name === 'cuda' ? 'cuda:0' : name;
  const found = addon.devices();
  const index = found.findIndex((device) => device.name === wanted);
  if (index < 0) throw wrong(reason || `there is none beyond ${found.at(-1)!.name}`);
  indices.set(name, index);
  return index;
}

/** LINATTN_DEVICE when the process began: reading the environment is slow. */
const asked = process.env.LINATTN_DEVICE || 'auto';

/** Where tensors are made that name no device: LINATTN_DEVICE, or the cpu. */
export const defaultDevice = (): DeviceName => (asked === 'auto' ? 'cpu' : (asked as DeviceName));

/** The device of a model that names none: LINATTN_DEVICE, or the first CUDA device, or the cpu. */
export const modelDevice = (): DeviceName => {
  if (asked !== 'auto') return asked as DeviceName;
  return devices().find((device) => device.name !== 'cpu' && device.unavailable === undefined)?.name ?? 'cpu';
};

/** A recorded command list. */
export interface Graph extends Disposable {
  /** Enqueues the recorded commands again, with one call. */
  replay(): void;
  dispose(): void;
}

export interface Device {
  readonly name: DeviceName;
  /** Processor, instruction level and threads. */
  readonly description: string;
  /** Why the device cannot be used; absent when it can. */
  readonly unavailable?: string;
  /** Bytes: of live tensors, of these and what is kept for reuse, and of the whole device. */
  memory(): { readonly used: number; readonly reserved: number; readonly total: number };
  /**
   * Records the commands that `fn` (synchronous) enqueues instead of running them. Tensors that their ops make end with
   * the graph; zeros made in `fn` do not, and no replay clears them. Experimental.
   */
  capture(fn: () => void): Graph;
}

class RecordedGraph implements Graph {
  constructor(private handle: number) {}

  replay(): void {
    if (this.handle === 0) throw new LinattnError('ERR_DISPOSED', 'replay: the graph is disposed');
    checked(addon.replay(this.handle));
  }

  dispose(): void {
    if (this.handle !== 0) addon.destroyGraph(this.handle);
    this.handle = 0;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function capture(device: number, fn: () => void): Graph {
  if (typeof fn !== 'function') {
    throw new LinattnError('ERR_ARGUMENT', `capture: fn must be a function, got ${typeof fn}`);
  }
  checked(addon.captureBegin(device));
  let keep = false;
  let graph = 0;
  try {
    const result: unknown = fn();
    if (typeof (result as { then?: unknown } | null | undefined)?.then === 'function') {
      throw new LinattnError('ERR_ARGUMENT', 'capture: fn must be synchronous, it returned a promise');
    }
    keep = true;
  } finally {
    graph = addon.captureEnd(keep);
  }
  return new RecordedGraph(checked(graph));
}

function memory(device: number): { used: number; reserved: number; total: number } {
  checked(addon.memory(device));
  const [used, reserved, total] = addon.record;
  return { used: used!, reserved: reserved!, total: total! };
}

/** Every device that linattn knows here, also those it cannot use. */
export function devices(): readonly Device[] {
  const reason = openCuda();
  const present = addon.devices().map(
    (device, index): Device => ({
      name: device.name as DeviceName,
      description: device.description,
      memory: () => memory(index),
      capture: (fn) => capture(index, fn),
    }),
  );
  if (present.length > 1) return present;
  const absent = (): never => {
    throw new LinattnError('ERR_DEVICE', `device: cuda is not available: ${reason}`);
  };
  return [
    ...present,
    { name: 'cuda', description: 'NVIDIA GPU', unavailable: reason, memory: absent, capture: absent },
  ];
}

/** The device of that name. Throws ERR_DEVICE with the reason when it is missing. */
export function deviceOf(name: DeviceName): Device {
  const index = deviceIndex(name);
  return devices()[index]!;
}

/** @internal resolves when every command enqueued so far is done */
export const fence = (name: DeviceName): Promise<void> => request((number) => addon.fence(deviceIndex(name), number));

/**
 * @internal milliseconds that the device takes for the commands that `enqueue` enqueues, by its own clock: CUDA events, or
 * the queue's thread. One at a time on a device.
 */
export async function timed(name: DeviceName, enqueue: () => void | Promise<void>): Promise<number> {
  const index = deviceIndex(name);
  checked(addon.timeBegin(index));
  await enqueue();
  return timeEnd(index);
}

/** @internal as timed, of what `enqueue` enqueues before it returns; throws what that throws */
export function timedNow(name: DeviceName, enqueue: () => void): Promise<number> {
  const index = deviceIndex(name);
  checked(addon.timeBegin(index));
  enqueue();
  return timeEnd(index);
}

async function timeEnd(index: number): Promise<number> {
  const milliseconds = new Float64Array(1);
  await request((number) => addon.timeEnd(index, number, milliseconds));
  return milliseconds[0]!;
}

/** @internal of the whole process: live tensors, waiting commands, op commands run on the device since the start */
export function counters(name: DeviceName): { tensors: number; waiting: number; commands: number } {
  checked(addon.counters(deviceIndex(name)));
  const [tensors, waiting, commands] = addon.record;
  return { tensors: tensors!, waiting: waiting!, commands: commands! };
}

/** @internal level and threads of the cpu device */
export function cpu(): { level: string; threads: number } {
  const { level, threads } = addon.devices()[0]!;
  return { level: level!, threads: threads! };
}

/** @internal threads of the cpu device, which the whole process shares: the last call wins */
export function setThreads(threads: number): void {
  if (!Number.isSafeInteger(threads) || threads < 1 || threads > 1024) {
    throw new LinattnError('ERR_ARGUMENT', `threads must be a whole number from 1 to 1024, got ${shown(threads)}`);
  }
  checked(addon.setThreads(threads));
}
