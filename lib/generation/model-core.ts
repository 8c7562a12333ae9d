// What a model's sessions share.
import { linattnError } from '../errors';
import type { Sampling } from '../ops/sampling-table';
import type { SequenceState } from '../state/sequence-store';
import type { TextTokenizer } from '../tokenizer/tokenizer';
import type { Scheduler } from './scheduler';

export interface GenerationDefaults {
  readonly sampling: Sampling;
  /** Tokens that end a text. */
  readonly stopIds: readonly number[];
}

export class ModelCore {
  constructor(
    readonly folder: string,
    readonly scheduler: Scheduler,
    readonly vocabularySize: number,
    /** Absent when the folder has no tokenizer.json: token ids work, text does not. */
    readonly tokenizer: TextTokenizer | undefined,
    readonly generationDefaults: GenerationDefaults,
  ) {}

  /** The tokenizer, or ERR_TOKENIZER. */
  needTokenizer(call: string): TextTokenizer {
    if (this.tokenizer !== undefined) return this.tokenizer;
    throw linattnError('ERR_TOKENIZER', `${call}: ${this.folder} has no tokenizer.json, so only token ids can be read`);
  }

  /** Bytes that a sequence holds beside its checkpoints. */
  bytesOf(sequence: SequenceState): { stateBytes: number; kvBytes: number } {
    return this.scheduler.store.bytesOf(sequence);
  }
}
