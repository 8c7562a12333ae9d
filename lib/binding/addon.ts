// The native addon's type, written once. native/binding/addon-environment.h says how each function reads `record`.
// Numbers returned are >= 0, or -1 when lastError() tells what failed.

export type FieldKind = 'in' | 'optional' | 'inout' | 'out' | 'number';

export interface Addon {
  readonly record: Float64Array;
  readonly ops: readonly { readonly name: string; readonly fields: readonly { name: string; kind: FieldKind }[] }[];
  readonly startError?: string;
  readonly startErrorCode?: string;
  run(): number;
  create(): number;
  view(): number;
  release(count: number): number;
  write(id: number, byteOffset: number, data: ArrayBufferView): number;
  writeHeld(id: number, byteOffset: number, data: ArrayBufferView, request: number): number;
  pin(device: number, view: Uint8Array): number;
  unpin(pin: number): number;
  makeChecksum(block: Uint8Array, seed: number, request: number): number;
  checkChecksum(block: Uint8Array, seed: number, request: number): number;
  copy(from: number, to: number): number;
  read(id: number, request: number, target: ArrayBufferView): number;
  wait(id: number, request: number): number;
  fence(device: number, request: number): number;
  timeBegin(device: number): number;
  timeEnd(device: number, request: number, milliseconds: Float64Array): number;
  onComplete(callback: (request: number, code?: string, message?: string) => void): number;
  captureBegin(device: number): number;
  captureEnd(keep: boolean): number;
  replay(graph: number): number;
  destroyGraph(graph: number): number;
  openFile(path: string): number;
  loadFile(file: number, offset: number, id: number): number;
  closeFile(file: number): number;
  /** Opens the CUDA backend in this file at the first call; why it has no device, or ''. */
  openCuda(file: string): string;
  devices(): { name: string; description: string; level?: string; threads?: number }[];
  memory(device: number): number;
  charge(device: number, bytes: number): number;
  counters(device: number): number;
  setThreads(threads: number): number;
  lastError(): { code: string; message: string };
}
