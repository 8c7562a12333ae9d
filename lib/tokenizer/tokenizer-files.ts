// Reads the tokenizer files of a model folder.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { linattnError } from '../errors';
import type { AddedToken, Definition } from './huggingface';
import type { Config } from './tokenizer-config';

export interface TokenizerFiles {
  readonly definition: Definition;
  /** tokenizer.json itself, which a worker reads without a copy; a changed file makes no difference. */
  readonly definitionBytes: SharedArrayBuffer;
  readonly config: Config;
  readonly chatTemplate: string | undefined;
}

/** tokenizer.json must be there, tokenizer_config.json and chat_template.jinja may. ERR_TOKENIZER names the file. */
export async function readTokenizerFiles(folder: string, signal?: AbortSignal): Promise<TokenizerFiles> {
  const read = (name: string) => readText(join(folder, name), signal);
  const [definitionText, configText, chatTemplate] = await Promise.all(
    ['tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja'].map(read),
  );
  const file = join(folder, 'tokenizer.json');
  if (definitionText === undefined) {
    throw linattnError(
      'ERR_TOKENIZER',
      `load: ${file} must be there (a Hugging Face fast tokenizer), got no such file`,
    );
  }
  const config = configText === undefined ? {} : (parse(configText, join(folder, 'tokenizer_config.json')) as Config);
  const parsed = parse(definitionText, file) as Partial<Definition>;
  if (typeof parsed.model?.vocab !== 'object' || parsed.model.vocab === null) {
    throw linattnError('ERR_TOKENIZER', `load: ${file} must have model.vocab, got none`);
  }
  const definitionBytes = new SharedArrayBuffer(Buffer.byteLength(definitionText));
  Buffer.from(definitionBytes).write(definitionText);
  return { definition: completed(parsed as Definition, config), definitionBytes, config, chatTemplate };
}

/** tokenizer_config.json may have added tokens that tokenizer.json lacks; Hugging Face adds them when it loads. */
export function completed(definition: Definition, config: Config): Definition {
  const added = definition.added_tokens ?? [];
  const contents = new Set(added.map((token) => token.content));
  const missing = Object.entries(config.added_tokens_decoder ?? {})
    .filter(([, token]) => !contents.has(token.content))
    .map(([id, token]): AddedToken => ({ ...token, id: Number(id) }));
  return {
    ...definition,
    added_tokens: [...added, ...missing],
    normalizer: definition.normalizer ?? null,
    pre_tokenizer: definition.pre_tokenizer ?? null,
    decoder: definition.decoder ?? null,
    post_processor: definition.post_processor ?? null,
  };
}

/** Undefined when there is no such file. */
async function readText(file: string, signal: AbortSignal | undefined): Promise<string | undefined> {
  let bytes: Buffer;
  try {
    bytes = await readFile(file, signal ? { signal } : {});
  } catch (error) {
    signal?.throwIfAborted();
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw linattnError('ERR_TOKENIZER', `load: ${file} must be readable, got ${code}`, { cause: error });
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw linattnError('ERR_TOKENIZER', `load: ${file} must be UTF-8, got other bytes`, { cause: error });
  }
}

function parse(text: string, file: string): object {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw linattnError('ERR_TOKENIZER', `load: ${file} must be JSON, got ${(error as Error).message}`, {
      cause: error,
    });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw linattnError(
      'ERR_TOKENIZER',
      `load: ${file} must be a JSON object, got ${JSON.stringify(value).slice(0, 40)}`,
    );
  }
  return value;
}
