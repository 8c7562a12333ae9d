// Files that are whole or absent: written beside, flushed to the disk, then renamed.
import { randomBytes } from 'node:crypto';
import { type FileHandle, open, rename, unlink } from 'node:fs/promises';
import path from 'node:path';

/** How the names of files that are being written end. */
export const partSuffix = '.part';

/** Writes the chunks as `file`, which holds all of them or what was there before, even when the process is killed. */
export async function writeDurably(
  file: string,
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<void> {
  const random = randomBytes(6).toString('hex');
  const beside = path.join(path.dirname(file), `.${path.basename(file)}.${random}${partSuffix}`);
  let handle: FileHandle | undefined;
  try {
    for await (const chunk of chunks) {
      handle ??= await open(beside, 'wx');
      for (let done = 0; done < chunk.length; ) done += (await handle.write(chunk, done)).bytesWritten;
    }
    await handle!.sync();
    await handle!.close();
    await rename(beside, file);
  } catch (error) {
    await handle?.close();
    if (handle !== undefined) await unlink(beside).catch(() => undefined);
    throw error;
  }
  await syncFolder(path.dirname(file));
}

/** A rename is on the disk when its folder is. Where folders cannot be opened (Windows) the system sees to it. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => undefined);
  try {
    await handle?.sync();
  } finally {
    await handle?.close();
  }
}
