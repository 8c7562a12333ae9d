// Finds the addon in its one place, and carries its answers and errors into JavaScript.
import path from 'node:path';
import { type ErrorCode, LinattnError } from '../errors';
import type { Addon } from './addon';

const folder = path.join(__dirname, '..', '..', 'prebuilds', `${process.platform}-${process.arch}`);
const file = path.join(folder, 'linattn.node');

function load(): Addon {
  let addon: Addon;
  try {
    addon = require(file) as Addon;
  } catch (cause) {
    const [reason] = (cause instanceof Error ? cause.message : String(cause)).split('\n'); // without the stack of requires
    throw new LinattnError(
      'ERR_ADDON',
      `the native addon did not load from ${file}: ${reason}. Reinstall linattn on this platform, or run \`npm run build\` in a clone`,
      { cause },
    );
  }
  if (addon.startError !== undefined) {
    throw new LinattnError((addon.startErrorCode ?? 'ERR_ADDON') as ErrorCode, addon.startError);
  }
  return addon;
}

export const addon = load();

/** Where the CUDA backend is, beside the addon or as LINATTN_CUDA_LIBRARY says. */
const cudaLibrary = (): string =>
  path.resolve(process.env.LINATTN_CUDA_LIBRARY || path.join(folder, 'linattn-cuda.so'));

/** Opens the CUDA backend unless it is open. Returns why there is no CUDA device, or '' when there is one. */
export const openCuda = (): string => addon.openCuda(cudaLibrary());

/** The error that the addon kept; its op is what stands before the first colon. */
export function nativeError(error: { code?: string | undefined; message?: string | undefined }): LinattnError {
  const message = error.message ?? 'unknown error';
  const op = /^([a-z][A-Za-z0-9]*): /.exec(message)?.[1];
  return new LinattnError((error.code ?? 'ERR_ADDON') as ErrorCode, message, { op });
}

/** The addon's answer, or its error thrown. */
export function checked(answer: number): number {
  if (answer < 0) throw nativeError(addon.lastError());
  return answer;
}

interface Pending {
  resolve(): void;
  reject(error: LinattnError): void;
}

const pending = new Map<number, Pending>();
let lastRequest = 0;

addon.onComplete((request, code, message) => {
  const waiting = pending.get(request);
  pending.delete(request);
  if (code === undefined) waiting?.resolve();
  else waiting?.reject(nativeError({ code, message }));
});

/** Resolves when the request that `start` made of the addon is done. */
export function request(start: (request: number) => number): Promise<void> {
  return new Promise((resolve, reject) => {
    const id = ++lastRequest;
    if (start(id) < 0) {
      reject(nativeError(addon.lastError()));
      return;
    }
    pending.set(id, { resolve, reject });
  });
}
