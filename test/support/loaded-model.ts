// A model for all tests of a file.
import { rmSync } from 'node:fs';
import { load } from '../../lib/generation/load';
import type { Model } from '../../lib/generation/model';
import { tinyModelFolder } from './tiny-model';

/** Gives the tests of the file, before the first of them, a model of two sequences and its folder; both go at the end. */
export function useTinyModel(take: (model: Model, folder: string) => void): void {
  let folder: string;
  let model: Model;
  beforeAll(async () => {
    folder = tinyModelFolder();
    model = await load({ model: folder, maxSequences: 2 });
    take(model, folder);
  });
  afterAll(async () => {
    await model.dispose();
    rmSync(folder, { recursive: true });
  });
}
