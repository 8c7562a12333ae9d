// What a family file provides: which configs it reads, and how the model is built from weights.
import type { Config } from '../config';
import type { LanguageModel } from '../language-model';
import type { WeightSource } from '../weights';

/** A config that was read and accepted. */
export interface Plan {
  readonly family: string;
  /** Tokens that end a text, from the config; generation_config.json may name more. */
  readonly stopIds: readonly number[];
  /** Positions that the model was made for. */
  readonly contextLength: number;
  /** Stored tensors that are left unread on purpose. */
  readonly ignored: RegExp;
  /** Runs twice: with a WeightCheck, then with a WeightLoader. */
  build(source: WeightSource): Promise<LanguageModel>;
}

export interface Family {
  readonly modelTypes: readonly string[];
  /** Throws ERR_MODEL_UNSUPPORTED naming the field that is not understood. */
  read(config: Config): Plan;
}
