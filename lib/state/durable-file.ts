// Files that are whole or absent: written beside, flushed to the disk, then renamed.
import { randomBytes } from 'node:crypto';
import { access, constants, type FileHandle, open, readlink, realpath, rename, stat, unlink } from 'node:fs/promises';
import path from 'node:path';
import { LinattnError, linattnError } from '../errors';

/** How the names of files that are being written end. */
export const partSuffix = '.part';

/**
 * Writes the chunks as `file`, which holds all of them or what was there before, even when the process is killed; where it
 * is a link, what it points to. ERR_FILE for a device, a pipe or a folder: none of these is replaced.
 */
export async function writeDurably(
  call: string,
  file: string,
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<void> {
  const place = await placeOf(call, file);
  const random = randomBytes(6).toString('hex');
  const beside = path.join(path.dirname(place), `.${path.basename(place)}.${random}${partSuffix}`);
  let handle: FileHandle | undefined;
  try {
    for await (const chunk of chunks) {
      handle ??= await open(beside, 'wx');
      for (let done = 0; done < chunk.length; ) done += (await handle.write(chunk, done)).bytesWritten;
    }
    await handle!.sync();
    await handle!.close();
    await rename(beside, place);
  } catch (error) {
    await handle?.close();
    if (handle !== undefined) await unlink(beside).catch(() => undefined);
    throw error;
  }
  await syncFolder(path.dirname(place));
}

/** ERR_FILE unless `writeDurably` could begin: for who would else learn it after long work. */
export async function checkWritable(call: string, file: string): Promise<void> {
  try {
    await access(path.dirname(await placeOf(call, file)), constants.W_OK);
  } catch (cause) {
    if (LinattnError.isInstance(cause)) throw cause;
    throw linattnError('ERR_FILE', `${call}: ${file}: ${(cause as Error).message}`, { cause });
  }
}

/** Where the bytes of a file lie, or would. */
async function placeOf(call: string, file: string): Promise<string> {
  const place = await realpath(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (place === undefined) {
    const target = await readlink(file).catch(() => undefined); // of a link to what is not there yet
    return target === undefined ? file : placeOf(call, path.resolve(await realpath(path.dirname(file)), target));
  }
  if ((await stat(place)).isFile()) return place;
  throw linattnError(
    'ERR_FILE',
    `${call}: ${file} must be a regular file or not there, it is a folder, a device or a pipe`,
  );
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
