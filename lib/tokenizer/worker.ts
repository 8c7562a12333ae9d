// The worker in which long text is encoded: builds the tokenizer once, then answers batch by batch.
import { parentPort, workerData } from 'node:worker_threads';
import { Encoder } from './encoder';
import type { Definition } from './huggingface';
import type { Config } from './tokenizer-config';
import { completed } from './tokenizer-files';

/** What the worker is started with: tokenizer.json as shared bytes, and tokenizer_config.json. */
export interface WorkerStart {
  readonly definition: SharedArrayBuffer;
  readonly config: Config;
}
/** A run of pieces of one text. */
export interface Batch {
  readonly job: number;
  readonly text: string;
  /** Where the pieces end, in text. */
  readonly ends: readonly number[];
  /** The text goes on where a cut was made. */
  readonly continued: boolean;
}
export type Answer =
  | { readonly job: number; readonly ids: Int32Array; readonly counts: readonly number[] }
  | { readonly job: number; readonly error: string };

const { definition, config } = workerData as WorkerStart;
const parsed = JSON.parse(Buffer.from(definition).toString('utf8')) as Definition;
const encoder = new Encoder(completed(parsed, config), config);
const port = parentPort!;
port.on('message', ({ job, text, ends, continued }: Batch) => {
  try {
    const { ids, counts } = encoder.encodePieces(text, ends, continued);
    port.postMessage({ job, ids, counts } satisfies Answer, [ids.buffer as ArrayBuffer]);
  } catch (error) {
    port.postMessage({ job, error: String(error) } satisfies Answer);
  }
});
