// How the packed tokens of a step divide into sequences, and where the state of each is read and written.
import { checkOptions, linattnError, shown } from '../errors';
import { type DeviceName, defaultDevice } from '../tensor/device';
import { Tensor } from '../tensor/tensor';

export interface SequencesInit {
  /** Sequences, N. */
  readonly rows: number;
  /** Packed tokens of all of them, T. */
  readonly tokens: number;
  /** Most tokens of one. */
  readonly maxTokens: number;
  /** Sequences [0, singleRows) have exactly one token and come first: they take the step kernels. */
  readonly singleRows: number;
  /** int32 [N + 1]: sequence n has the tokens [offsets[n], offsets[n + 1]). */
  readonly offsets: Tensor<'int32'>;
  /** int32 [N]: state slot to start from; -1 = from zero. May repeat. */
  readonly readSlots: Tensor<'int32'>;
  /** int32 [N]: state slot for the end state; -1 = drop it. Others are distinct and no other sequence's readSlot. */
  readonly writeSlots: Tensor<'int32'>;
  /** int32 [N]: tokens already in the state, so the position of the first token. */
  readonly positions: Tensor<'int32'>;
}

/** The fields of an op that takes Sequences, in the order of the native struct. */
export const sequenceFields = {
  rows: 'number',
  tokens: 'number',
  maxTokens: 'number',
  singleRows: 'number',
  offsets: 'in',
  readSlots: 'in',
  writeSlots: 'in',
  positions: 'in',
} as const;

/** The numbers are host values, frozen by a capture; the tensors may change between replays. */
export class Sequences implements SequencesInit, Disposable {
  readonly rows: number;
  readonly tokens: number;
  readonly maxTokens: number;
  readonly singleRows: number;
  readonly offsets: Tensor<'int32'>;
  readonly readSlots: Tensor<'int32'>;
  readonly writeSlots: Tensor<'int32'>;
  readonly positions: Tensor<'int32'>;
  /** @internal the values of sequenceFields */
  readonly record: SequencesInit;

  /**
   * @param longest @internal what maxTokens is at most. More than `tokens`, it may be a bound instead of the most tokens of
   *   one: kernels are chosen by it, and those of all steps are the same where it always is.
   * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
   */
  constructor(init: SequencesInit, longest = init.tokens) {
    const { rows, tokens, maxTokens, singleRows, offsets, readSlots, writeSlots, positions } = init;
    const wholes = { rows, tokens, maxTokens, singleRows };
    for (const [name, value] of Object.entries(wholes)) {
      if (Number.isSafeInteger(value) && value >= 0 && value < 2 ** 31) continue;
      throw linattnError('ERR_ARGUMENT', `Sequences: ${name} must be a whole number from 0, got ${shown(value)}`);
    }
    if (singleRows > rows) {
      throw linattnError('ERR_ARGUMENT', `Sequences: singleRows must be at most rows = ${rows}, got ${singleRows}`);
    }
    if (maxTokens > longest) {
      throw linattnError(
        'ERR_ARGUMENT',
        `Sequences: maxTokens must be at most tokens = ${tokens}, got ${shown(maxTokens)}`,
      );
    }
    const tensors = { offsets, readSlots, writeSlots, positions };
    for (const [name, tensor] of Object.entries(tensors)) {
      const size = name === 'offsets' ? rows + 1 : rows;
      if (tensor.dtype !== 'int32') {
        throw linattnError('ERR_DTYPE', `Sequences: ${name} must be int32, got ${tensor.dtype}`);
      }
      if (tensor.shape.length === 1 && tensor.shape[0] === size) continue;
      const dims = name === 'offsets' ? 'N + 1' : 'N';
      throw linattnError('ERR_SHAPE', `Sequences: ${name} must be [${dims}] = [${size}], got [${tensor.shape}]`);
    }
    this.rows = rows;
    this.tokens = tokens;
    this.maxTokens = maxTokens;
    this.singleRows = singleRows;
    this.offsets = offsets;
    this.readSlots = readSlots;
    this.writeSlots = writeSlots;
    this.positions = positions;
    this.record = { ...wholes, ...tensors };
  }

  /** Frees its four tensors. Idempotent. */
  dispose(): void {
    for (const tensor of [this.offsets, this.readSlots, this.writeSlots, this.positions]) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

export interface SequenceOptions {
  /** By sequence; 0 to N - 1 by default. -1 = start from zero. */
  readonly readSlots?: readonly number[];
  /** By sequence; 0 to N - 1 by default. -1 = drop the end state. */
  readonly writeSlots?: readonly number[];
  /** Tokens already in each state; 0 by default. */
  readonly positions?: readonly number[];
  readonly device?: DeviceName;
}

const below = 2 ** 31;

function checkInts(name: string, values: readonly number[], count: number, least: number): void {
  if (!Array.isArray(values)) {
    throw linattnError('ERR_ARGUMENT', `sequences: ${name} must be a list of whole numbers, got ${typeof values}`);
  }
  if (values.length !== count) {
    throw linattnError('ERR_SHAPE', `sequences: ${name} must have N = ${count} values, got ${values.length}`);
  }
  const bad = values.findIndex((value) => !(Number.isSafeInteger(value) && value >= least && value < below));
  if (bad < 0) return;
  throw linattnError(
    'ERR_ARGUMENT',
    `sequences: ${name}[${bad}] must be a whole number from ${least}, got ${values[bad]}`,
  );
}

/**
 * How packed tokens divide into sequences of the given lengths, in order, on a device. Sequence n reads its state from
 * readSlots[n] and writes it to writeSlots[n]. Sequences of one token that come first take the step kernels.
 * @throws LinattnError ERR_ARGUMENT for a negative length, slot or position, for 2^31 tokens or more, a slot that is
 *   written twice, or one that another sequence reads; ERR_SHAPE for a list of another length
 */
export function sequences(lengths: readonly number[], options: SequenceOptions = {}): Sequences {
  checkOptions('sequences', options);
  const N = (lengths as readonly number[] | undefined)?.length ?? 0;
  checkInts('lengths', lengths, N, 0);
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  if (tokens >= below) {
    throw linattnError('ERR_ARGUMENT', `sequences: lengths must have a sum below ${below}, got ${shown(tokens)}`);
  }
  const own = lengths.map((_, n) => n);
  const { readSlots = own, writeSlots = own, positions = lengths.map(() => 0), device = defaultDevice() } = options;
  checkInts('readSlots', readSlots, N, -1);
  checkInts('writeSlots', writeSlots, N, -1);
  checkInts('positions', positions, N, 0);
  const writer = new Map<number, number>();
  writeSlots.forEach((slot, n) => {
    if (writer.has(slot))
      throw linattnError('ERR_ARGUMENT', `sequences: writeSlots[${n}]: slot ${slot} is written twice`);
    if (slot >= 0) writer.set(slot, n);
  });
  readSlots.forEach((slot, n) => {
    const other = writer.get(slot) ?? n;
    if (other === n) return;
    throw linattnError('ERR_ARGUMENT', `sequences: readSlots[${n}]: slot ${slot} is written by sequence ${other}`);
  });
  return packedSequences(lengths, { readSlots, writeSlots, positions, device });
}

/**
 * @internal `sequences` without its checks, and with other slots by default: every state starts from zero and is dropped.
 */
export function packedSequences(lengths: readonly number[], options: SequenceOptions = {}): Sequences {
  const offsets = [0];
  for (const length of lengths) offsets.push(offsets.at(-1)! + length);
  const others = lengths.findIndex((length) => length !== 1);
  const none = lengths.map(() => -1);
  const lists = [
    offsets,
    options.readSlots ?? none,
    options.writeSlots ?? none,
    options.positions ?? lengths.map(() => 0),
  ];
  const [begins, readSlots, writeSlots, positions] = together(
    lists,
    options.device === undefined ? defaultDevice() : options.device,
  );
  return new Sequences({
    rows: lengths.length,
    tokens: offsets.at(-1)!,
    maxTokens: lengths.reduce((most, length) => Math.max(most, length), 0), // of any number of them
    singleRows: others < 0 ? lengths.length : others,
    offsets: begins!,
    readSlots: readSlots!,
    writeSlots: writeSlots!,
    positions: positions!,
  });
}

/** A tensor of each list, in one piece of memory that one copy fills. */
function together(lists: readonly (readonly number[])[], device: DeviceName): Tensor<'int32'>[] {
  const all = lists.flat();
  const memory = Tensor.from(all, { dtype: 'int32', shape: [all.length], device });
  let end = 0;
  const parts = lists.map(({ length }) => {
    end += length;
    return memory.view([length], end - length, 1);
  });
  memory.dispose();
  return parts;
}

const mostUniform = 2 ** 20;

/**
 * `batch` sequences of `length` tokens each: [B, T, ...] arrays, packed, from zero.
 * @throws LinattnError ERR_ARGUMENT unless batch is at most 2^20 and there are fewer than 2^31 tokens
 */
export function uniformSequences(batch: number, length: number, device: DeviceName = defaultDevice()): Sequences {
  for (const [name, value] of Object.entries({ batch, length })) {
    if (Number.isSafeInteger(value) && value >= 0) continue;
    throw linattnError('ERR_ARGUMENT', `uniformSequences: ${name} must be a whole number from 0, got ${shown(value)}`);
  }
  if (batch > mostUniform || batch * length >= below) {
    throw linattnError(
      'ERR_ARGUMENT',
      `uniformSequences: there must be at most ${mostUniform} sequences and fewer than ${below} tokens, got ${batch} of ${length}`,
    );
  }
  return packedSequences(new Array<number>(batch).fill(length), { device });
}
