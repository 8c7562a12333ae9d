// What commands work with besides their flags, given to them so that tests run a command without a process.
import type { Readable, Writable } from 'node:stream';
import type { readModelFolder } from '../generation/model-folder';
import type { devices, load } from '../index';
import type { Server } from '../server/server';
import type { loadTokenizer } from '../tokenizer/tokenizer';
import type { Interrupts } from './signals';

export interface Context {
  readonly stdin: Readable & { readonly isTTY?: boolean };
  readonly stdout: Writable & { readonly isTTY?: boolean };
  readonly stderr: Writable & { readonly isTTY?: boolean };
  readonly env: Readonly<Record<string, string | undefined>>;
  /** What ends a command early: Ctrl-C, SIGTERM, a reader of stdout that went away. */
  readonly interrupts: Interrupts;
  /** The library, loaded when a command needs it: help and usage errors work where the addon does not. */
  readonly library: () => Library;
}
export interface Library {
  readonly load: typeof load;
  readonly devices: typeof devices;
  readonly loadTokenizer: typeof loadTokenizer;
  readonly readModelFolder: typeof readModelFolder;
  readonly Server: typeof Server;
  /** The folder of the model of the package. */
  readonly defaultModel: string;
}
