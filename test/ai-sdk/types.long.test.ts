// The types of linattn/ai-sdk, as dist/ has them, are what the AI SDK takes. In a program of its own: the AI SDK's types
// need those of a browser.
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { run, temporaryFolder } from '../repo/copy';
import { root } from '../repo/tree';

const program = `
import type { EmbeddingModelV4, LanguageModelV4 } from '@ai-sdk/provider';
import { generateText, streamText } from 'ai';
import type { Model } from 'linattn';
import { embeddingModel, languageModel } from 'linattn/ai-sdk';

declare const loaded: Model;
const model: LanguageModelV4 = languageModel(loaded, { session: loaded.createSession() });
export const embedding: EmbeddingModelV4 = embeddingModel(loaded);
export const texts = [await generateText({ model, prompt: 'a' }), streamText({ model: languageModel(loaded), prompt: 'a' })];
`;

test('compile against those of ai and @ai-sdk/provider', () => {
  const folder = temporaryFolder('ai-sdk-types');
  mkdirSync(path.join(folder, 'node_modules'));
  const link = (name: string, to: string) => symlinkSync(to, path.join(folder, 'node_modules', name), 'dir');
  link('linattn', root);
  for (const name of ['ai', '@ai-sdk', '@types']) link(name, path.join(root, 'node_modules', name));
  writeFileSync(path.join(folder, 'use.mts'), program);
  const compilerOptions = {
    ...{ module: 'nodenext', target: 'es2022', lib: ['es2023', 'esnext.disposable', 'dom'], types: ['node'] },
    ...{ strict: true, noEmit: true, skipLibCheck: true },
  };
  writeFileSync(path.join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['use.mts'] }));
  expect(run(folder, path.join(root, 'node_modules', '.bin', 'tsc'), ['--project', '.'])).toBe('');
  rmSync(folder, { recursive: true });
});
