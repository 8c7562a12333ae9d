// The public face of a session, and what it is made from.
import type { Checkpoint } from '../state/sequence-store';
import type { Generation } from './generation';
import type { GenerateOptions, Input, PrefillOptions } from './input';
import type { Snapshot } from './snapshot';
import type { TokenList } from './token-list';
import type { PrefillUsage } from './usage';

/** One sequence and its state. One prefill or generation at a time; a second is ERR_BUSY. */
export interface Session extends AsyncDisposable {
  /** Tokens that the state stands for. The last token of a generation is pending: the next call reads it first. */
  readonly length: number;
  /** Those tokens. ERR_UNSUPPORTED when the session began with a snapshot that kept only their hash. */
  tokens(): Int32Array;
  /** Reads a context, or what comes next; tokens that the state stands for are not read again. */
  prefill(input: Input, options?: PrefillOptions): Promise<PrefillUsage>;
  /** Generates from a context, or without input from where the session stands. Starts at once. */
  generate(options?: (Input | object) & GenerateOptions): Generation;
  /** Of the next token, [vocabularySize]; a pending token is read first. */
  logits(): Promise<Float32Array>;
  /** Another session that goes on from here on its own; a pending token is read first. ERR_OUT_OF_MEMORY */
  fork(): Promise<Session>;
  /** What the session stands for, kept; a pending token is read first. ERR_OUT_OF_MEMORY when maxSnapshots are held. */
  snapshot(): Promise<Snapshot>;
  /** Waits for the work in flight, which is aborted, and frees the state. Idempotent. */
  dispose(): Promise<void>;
}

/** What a session starts with: a checkpoint and the tokens it stands for. */
export interface SessionStart {
  readonly checkpoint: Checkpoint;
  readonly history: TokenList;
}

/** What a session needs of its model. */
export interface SessionOwner {
  open(start: SessionStart | undefined): Session;
  ended(): void;
}
