// Flags that commands share, the environment behind them, and their values. Flags win over the environment.
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { DeviceName, GenerateOptions, LoadOptions } from '../index';
import { type NumberRule, samplingRules } from '../ops/sampling-table';

export interface ModelFlags {
  model?: string;
  device: DeviceName | 'auto';
  dtype: NonNullable<LoadOptions['dtype']>;
  threads?: number;
}
export interface SamplingFlags {
  maxTokens: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  seed?: number;
  stop?: string[];
  ignoreEos?: boolean;
}
export interface ReportFlags {
  quiet?: boolean;
  progress: boolean;
  verbose?: boolean;
  json?: boolean;
  jsonl?: boolean;
}

/** The environment variables of linattn, for `info` and for the help. */
export const environment: Readonly<Record<string, string>> = {
  LINATTN_MODEL: 'model folder (--model)',
  LINATTN_DEVICE: 'device (--device)',
  LINATTN_THREADS: 'threads of the cpu device (--threads)',
  LINATTN_CACHE: 'where states are kept (--cache)',
  LINATTN_CPU: 'CPU level to force: baseline, avx2, avx512, avx512bf16, neon',
};

/** The variable is the flag's where it is not empty: one that a script or a container did not set is none. */
export const withVariable = (option: Option, variable: string): Option =>
  process.env[variable] === '' ? option : option.env(variable);

export const modelOption = () =>
  withVariable(
    new Option('-m, --model <folder>', 'Hugging Face model folder (default: the model of the package)'),
    'LINATTN_MODEL',
  );

export function addModelFlags(command: Command): Command {
  return command
    .addOption(modelOption())
    .addOption(
      withVariable(new Option('--device <name>', 'cpu, cuda, cuda:N or auto'), 'LINATTN_DEVICE')
        .default('auto')
        .argParser(device),
    )
    .addOption(
      new Option('--dtype <type>', 'type of the weights; auto: as stored')
        .choices(['auto', 'float32', 'float16', 'bfloat16', 'int8'])
        .default('auto'),
    )
    .addOption(
      withVariable(new Option('--threads <n>', 'threads of the cpu device'), 'LINATTN_THREADS').argParser(integer(1)),
    );
}

export function addSamplingFlags(command: Command): Command {
  return command
    .option('-n, --max-tokens <n>', 'most tokens to generate; 0 only reads the prompt', integer(0), 512)
    .option('-t, --temperature <x>', 'randomness; 0 takes the most probable token', sampling('temperature'))
    .option('--top-k <n>', 'sample from the n most probable tokens; 0: from all', sampling('topK'))
    .option('--top-p <x>', 'sample from the most probable tokens that hold this much', sampling('topP'))
    .option('--min-p <x>', 'leave out tokens less probable than this share of the most probable', sampling('minP'))
    .option(
      '--repetition-penalty <x>',
      'above 1 makes tokens that were seen less probable',
      sampling('repetitionPenalty'),
    )
    .option('--seed <n>', 'the same seed gives the same text on the same device and version', sampling('seed'))
    .option('--stop <text>', 'end before this text (repeatable; \\n, \\t, \\\\ are read as escapes)', collect)
    .option('--ignore-eos', "go on after the model's own end of text (for benchmarks)");
}

export function addReportFlags(command: Command): Command {
  return command
    .option('-q, --quiet', 'no progress, no summary, no hints')
    .option('--no-progress', 'no progress bar')
    .option('--verbose', 'summary also where stderr is no terminal; causes and stack of errors');
}

export const loadOptions = ({ model, device, dtype, threads }: ModelFlags): LoadOptions => ({
  ...(model !== undefined && { model }),
  ...(threads !== undefined && { threads }),
  device,
  dtype,
});

export const generateOptions = (flags: SamplingFlags): GenerateOptions => {
  const names = ['temperature', 'topK', 'topP', 'minP', 'repetitionPenalty', 'seed', 'stop', 'ignoreEos'] as const;
  const given = names.filter((name) => flags[name] !== undefined).map((name) => [name, flags[name]]);
  return { maxTokens: flags.maxTokens, ...Object.fromEntries(given) };
};

const parsed = (text: string, { holds, wanted }: NumberRule): number => {
  const value = Number(text);
  if (text.trim() === '' || !holds(value)) throw new InvalidArgumentError(`It must be ${wanted}.`);
  return value;
};

/** A whole number from `least` to `most`, exact in a double. */
export const integer = (least: number, most = Number.MAX_SAFE_INTEGER) => {
  const holds = (value: number) => Number.isSafeInteger(value) && value >= least && value <= most;
  const wanted = most < Number.MAX_SAFE_INTEGER ? `from ${least} to ${most}` : `of at least ${least}`;
  return (text: string) => parsed(text, { holds, wanted: `a whole number ${wanted}` });
};

/** A place: an empty one is a variable that a script did not set. */
export const notEmpty = (text: string): string => {
  if (text === '') throw new InvalidArgumentError('It must not be empty.');
  return text;
};

const sampling = (name: keyof typeof samplingRules) => (text: string) => parsed(text, samplingRules[name]);

const device = (text: string) => {
  if (!/^(auto|cpu|cuda(:\d+)?)$/.test(text)) throw new InvalidArgumentError('It must be auto, cpu, cuda or cuda:N.');
  return text;
};

const escapes: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r', '\\': '\\' };
const collect = (text: string, previous: readonly string[] = []) => {
  const stop = text.replace(/\\([ntr\\])/g, (_, letter: string) => escapes[letter]!);
  if (stop === '') throw new InvalidArgumentError('It must not be empty.');
  return [...previous, stop];
};
