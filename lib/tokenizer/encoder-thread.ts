// Sends long text to the worker, batch by batch, and gathers its ids. The worker starts with the first text, keeps the
// process alive only while a text is in work, and ends when it was idle for a while.
import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { linattnError } from '../errors';
import { join } from './encoder';
import type { Answer, Batch, WorkerStart } from './worker';

export interface EncodedPieces {
  readonly ids: Int32Array;
  /** Where the pieces end in the text, and how many ids they have. */
  readonly ends: readonly number[];
  readonly counts: readonly number[];
}
interface Job {
  readonly text: string;
  readonly ends: Iterator<number>;
  /** Batches that the worker has not answered. */
  pending: number;
  /** What was sent and what came back, in characters of text. */
  sent: number;
  longestBatch: number;
  readonly allEnds: number[];
  readonly parts: Int32Array[];
  readonly counts: number[];
  readonly onProgress: (done: number) => void;
  readonly settle: (error: unknown, result?: EncodedPieces) => void;
}

const batchLength = 65_536;
const batchesAhead = 2; // one in work, one waiting: the worker never idles, and an abort loses two at most

export class EncoderThread {
  readonly #start: WorkerStart;
  readonly #idleMs: number;
  #worker: Worker | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #jobs = new Map<number, Job>();
  #nextJob = 1;

  constructor(start: WorkerStart, idleMs = 5000) {
    this.#start = start;
    this.#idleMs = idleMs;
  }

  /**
   * Encodes text from `start` on in pieces that end at `ends`. Rejects with signal.reason at once when aborted, with
   * ERR_TOKENIZER when the worker fails.
   */
  encode(
    text: string,
    start: number,
    ends: Iterator<number>,
    options: { signal?: AbortSignal | undefined; onProgress: (done: number) => void },
  ): Promise<EncodedPieces> {
    return new Promise((resolve, reject) => {
      const id = this.#nextJob++;
      const onAbort = () => this.#abort(id, options.signal!.reason);
      options.signal?.addEventListener('abort', onAbort, { once: true });
      const job: Job = {
        text,
        ends,
        pending: 0,
        sent: start,
        longestBatch: 0,
        allEnds: [],
        parts: [],
        counts: [],
        onProgress: options.onProgress,
        settle: (error, result) => {
          this.#jobs.delete(id);
          options.signal?.removeEventListener('abort', onAbort);
          if (this.#jobs.size === 0) this.#rest();
          if (result) resolve(result);
          else reject(error);
        },
      };
      this.#wake();
      this.#jobs.set(id, job);
      while (job.pending < batchesAhead && this.#send(id, job));
      if (job.pending === 0) job.settle(undefined, { ids: new Int32Array(0), ends: [], counts: [] });
    });
  }

  /** Ends the worker; what is in work rejects with ERR_DISPOSED. */
  dispose(): void {
    this.#fail(linattnError('ERR_DISPOSED', 'encode: the tokenizer was disposed'));
  }

  #wake(): void {
    clearTimeout(this.#timer);
    if (!this.#worker) {
      const worker = startWorker(this.#start);
      worker.on('message', (answer: Answer) => this.#receive(answer));
      // A worker that ended because it was told to is not this.#worker any more.
      const lost = (cause: unknown) => {
        if (this.#worker === worker)
          this.#fail(linattnError('ERR_TOKENIZER', `encode: the worker ended: ${cause}`, { cause }));
      };
      worker.on('error', lost);
      worker.on('exit', (code) => lost(`exit code ${code}`));
      this.#worker = worker;
    }
    this.#worker.ref();
  }

  #rest(): void {
    this.#worker?.unref();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#end(), this.#idleMs).unref();
  }

  #end(): void {
    clearTimeout(this.#timer);
    const worker = this.#worker;
    this.#worker = undefined;
    void worker?.terminate();
  }

  #fail(error: unknown): void {
    this.#end();
    for (const job of [...this.#jobs.values()]) job.settle(error);
    clearTimeout(this.#timer);
  }

  /** False when all of the text was sent. */
  #send(id: number, job: Job): boolean {
    const from = job.sent;
    const ends: number[] = [];
    while (job.sent - from < batchLength) {
      const next = job.ends.next();
      if (next.done) break;
      job.sent = next.value;
      job.allEnds.push(next.value);
      ends.push(next.value - from);
    }
    if (ends.length === 0) return false;
    job.pending++;
    job.longestBatch = Math.max(job.longestBatch, job.sent - from);
    const batch: Batch = { job: id, text: job.text.slice(from, job.sent), ends, continued: from > 0 };
    this.#worker!.postMessage(batch);
    return true;
  }

  #receive(answer: Answer): void {
    const job = this.#jobs.get(answer.job);
    if (!job) return; // aborted
    if ('error' in answer) {
      job.settle(linattnError('ERR_TOKENIZER', `encode: ${answer.error}`));
      return;
    }
    job.pending--;
    job.parts.push(answer.ids);
    job.counts.push(...answer.counts);
    this.#send(answer.job, job);
    try {
      job.onProgress(job.allEnds[job.counts.length - 1]!);
    } catch (error) {
      job.settle(error);
      return;
    }
    if (job.pending === 0) job.settle(undefined, { ids: join(job.parts), ends: job.allEnds, counts: job.counts });
  }

  #abort(id: number, reason: unknown): void {
    const job = this.#jobs.get(id);
    if (!job) return;
    job.settle(reason);
    // A batch that could not be cut may keep the worker for long: nobody waits for it now, so it is ended.
    if (this.#jobs.size === 0 && job.longestBatch > 2 * batchLength) this.#end();
  }
}

// Where the sources run as TypeScript (tests), the worker compiles them as it loads them; it is not run there itself.
const compileAndRun = `
  const { createRequire } = require('node:module');
  const { readFileSync } = require('node:fs');
  const { entry } = require('node:worker_threads').workerData;
  const load = createRequire(entry);
  const { transpileModule } = load('typescript');
  const compilerOptions = { module: 'commonjs', target: 'es2022', esModuleInterop: true };
  require.extensions['.ts'] = (module, file) =>
    module._compile(transpileModule(readFileSync(file, 'utf8'), { compilerOptions }).outputText, file);
  load(entry);
`;

function startWorker(start: WorkerStart): Worker {
  const isSource = extname(__filename) === '.ts';
  const entry = require.resolve(isSource ? './worker.ts' : './worker.js');
  return isSource
    ? new Worker(compileAndRun, { eval: true, workerData: { ...start, entry } })
    : new Worker(entry, { workerData: start });
}
