// A prefix store in a folder, one file a value. Several processes may share it, and one that is killed leaves whole files.
import { mkdir, open, readdir, stat, unlink } from 'node:fs/promises';
import path from 'node:path';
import { checkOptions, linattnError, shown } from '../errors';
import { mostReadAtOnce, readAt } from '../state/byte-source';
import { partSuffix, writeDurably } from '../state/durable-file';
import { checkBytes, checkedBudget, type Kept, overBudget, type PrefixStore } from './prefix-store';

const suffix = '.state';
/** A file that is still unfinished after this long was left by a process that was killed. */
const abandonedMs = 3_600_000;

const ifThere = <T>(work: Promise<T>): Promise<T | undefined> =>
  work.catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });

/**
 * What a file holds, in one read: fs.readFile makes thousands of it. Its last change becomes now, the time of its last use:
 * access times are not kept on every file system. What can be asked for together is: each call waits for one of a few threads,
 * which read other files.
 */
async function usedValue(file: string, memory: Uint8Array = new Uint8Array(0)): Promise<Uint8Array> {
  const handle = await open(file, 'r');
  const now = new Date();
  const asked = [
    handle.stat(),
    handle.read(memory, 0, Math.min(memory.length, mostReadAtOnce), 0),
    handle.utimes(now, now).catch(() => undefined),
  ] as const;
  try {
    const [{ size }, { bytesRead }] = await Promise.all(asked);
    if (bytesRead === size) return memory.subarray(0, size);
    return await readAt(handle, memory.length < size ? Buffer.allocUnsafeSlow(size) : memory.subarray(0, size), 0);
  } finally {
    await Promise.allSettled(asked); // nothing is read into the memory when it is the caller's again
    handle.close().catch(() => undefined); // nobody waits for it
  }
}

export class DirectoryStore implements PrefixStore {
  readonly maxBytes: number;
  /** Sets follow each other, so that each sees the files of the one before. */
  private setting: Promise<void> = Promise.resolve();

  /**
   * @param folder made when it is not there
   * @param options maxBytes: of the files, default 8 GiB; those used least recently go first
   * @throws LinattnError ERR_ARGUMENT
   */
  constructor(
    private readonly folder: string,
    options: { maxBytes?: number } = {},
  ) {
    checkOptions('DirectoryStore', options);
    const { maxBytes = 2 ** 33 } = options;
    if (typeof folder !== 'string' || folder === '') {
      throw linattnError('ERR_ARGUMENT', `DirectoryStore: folder must be a path, got ${shown(folder)}`);
    }
    this.maxBytes = checkedBudget('DirectoryStore', maxBytes);
  }

  private fileOf(key: string): string {
    if (!/^[a-z0-9-]{1,120}$/.test(key)) {
      throw linattnError('ERR_ARGUMENT', `DirectoryStore: keys are 1 to 120 characters of [a-z0-9-], got ${key}`);
    }
    return path.join(this.folder, key + suffix);
  }

  async get(key: string, memory?: Uint8Array): Promise<Uint8Array | undefined> {
    if (memory !== undefined) checkBytes('DirectoryStore', 'memory', memory);
    return ifThere(usedValue(this.fileOf(key), memory));
  }

  set(key: string, value: Uint8Array): Promise<void> {
    const set = this.setting.then(() => this.write(this.fileOf(key), value));
    this.setting = set.catch(() => undefined);
    return set;
  }

  private async write(file: string, value: Uint8Array): Promise<void> {
    checkBytes('DirectoryStore', 'value', value);
    if (value.byteLength > this.maxBytes) return;
    await mkdir(this.folder, { recursive: true });
    await writeDurably('DirectoryStore', file, [value]);
    await this.clear();
  }

  /** Deletes what is over the budget, and what killed processes left. */
  private async clear(): Promise<void> {
    const kept: Kept[] = [];
    for (const name of await readdir(this.folder)) {
      const isPart = name.endsWith(partSuffix);
      if (!isPart && !name.endsWith(suffix)) continue;
      const found = await ifThere(stat(path.join(this.folder, name)));
      if (found === undefined) continue;
      if (!isPart) kept.push({ key: name, bytes: found.size, usedAt: found.mtimeMs });
      else if (Date.now() - found.mtimeMs > abandonedMs) await this.remove(name);
    }
    for (const name of overBudget(kept, this.maxBytes)) await this.remove(name);
  }

  private async remove(name: string): Promise<void> {
    await ifThere(unlink(path.join(this.folder, name)));
  }

  async delete(key: string): Promise<void> {
    await ifThere(unlink(this.fileOf(key)));
  }

  async keys(): Promise<Iterable<string>> {
    const names = (await ifThere(readdir(this.folder))) ?? [];
    return names.filter((name) => name.endsWith(suffix)).map((name) => name.slice(0, -suffix.length));
  }
}
