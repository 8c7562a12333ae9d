// What a generation writes to standard output: text as it comes, one JSON object, or a line of JSON an event.

import { LinattnError } from '../errors';
import type { Chunk, GenerateResult, Usage } from '../index';
import type { Context } from './context';
import type { ReportFlags } from './flags';

export interface GenerationOutput {
  prefill(progress: { readonly done: number; readonly total: number; readonly cached: number }): void;
  token(chunk: Chunk): void;
  /** Undefined: interrupted before there was a result. */
  end(result: GenerateResult | undefined): void;
}

/** `echo` is put before the text. */
export function generationOutput(
  { stdout }: Pick<Context, 'stdout'>,
  flags: Pick<ReportFlags, 'json' | 'jsonl'>,
  echo = '',
): GenerationOutput {
  const line = (value: unknown) => stdout.write(`${JSON.stringify(value)}\n`);
  let text = echo;
  const tokens: number[] = [];
  const resultOf = (result: GenerateResult | undefined) => ({
    text: result === undefined ? text : echo + result.text,
    tokens: result === undefined ? tokens : [...result.tokens],
    finishReason: result?.finishReason ?? 'cancelled',
    usage: result?.usage ?? null,
  });
  const keep = (chunk: Chunk) => {
    text += chunk.text;
    tokens.push(chunk.token);
  };
  if (flags.json) return { prefill() {}, token: keep, end: (result) => line(resultOf(result)) };
  if (flags.jsonl) {
    return {
      prefill: ({ done, total, cached }) => line({ event: 'prefill', done, total, cached }),
      token(chunk) {
        keep(chunk);
        line({ event: 'token', text: chunk.text, token: chunk.token, logprob: chunk.logprob });
      },
      end: (result) => line({ event: 'result', ...resultOf(result) }),
    };
  }
  if (echo !== '') stdout.write(echo);
  return {
    prefill() {},
    token: (chunk) => chunk.text !== '' && stdout.write(chunk.text),
    end: () => stdout.isTTY && stdout.write('\n'),
  };
}

/** Standard output under --json and --jsonl ends with this. */
export const errorObject = (error: unknown): { error: { code: string; message: string } } => ({
  error: { code: codeOf(error), message: error instanceof Error ? error.message : String(error) },
});

const codeOf = (error: unknown): string => {
  if (LinattnError.isInstance(error)) return error.code;
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === 'string' ? code : 'ERR_UNKNOWN';
};

/** One line for people. */
export const errorLine = (error: unknown): string => {
  const { code, message } = errorObject(error).error;
  return `linattn: ${message} (${code})`;
};

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const seconds = (ms: number) => `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
export const bytesText = (bytes: number) =>
  bytes < 2 ** 20 ? `${(bytes / 2 ** 10).toFixed(1)} KiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** What a generation cost, in one line. */
export function summary({ usage }: Pick<GenerateResult, 'usage'>): string {
  return [promptSummary(usage), completionSummary(usage), stateSummary(usage)].join('; ');
}

function promptSummary({ promptTokens, cachedTokens, tokenizeMs, prefillMs }: Usage): string {
  const read = promptTokens - cachedTokens;
  const rate = prefillMs > 0 ? `, ${whole.format((read * 1000) / prefillMs)} tokens/s` : '';
  const cached = cachedTokens > 0 ? ` (${whole.format(cachedTokens)} cached)` : '';
  return `prompt ${whole.format(promptTokens)} tokens${cached} in ${seconds(tokenizeMs + prefillMs)}${rate}`;
}

const completionSummary = ({ completionTokens, decodeMs, tokensPerSecond }: Usage): string =>
  `text ${whole.format(completionTokens)} tokens in ${seconds(decodeMs)}, ${tokensPerSecond.toFixed(1)} tokens/s`;

const stateSummary = ({ stateBytes, kvBytes }: Usage): string =>
  `state ${bytesText(stateBytes)}${kvBytes > 0 ? ` + ${bytesText(kvBytes)} keys and values` : ''}`;
