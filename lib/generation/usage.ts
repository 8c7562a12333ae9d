// What a call cost.

export interface PrefillUsage {
  /** Tokens of the whole context, and how many of them were not read because the state stood for them already. */
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly tokenizeMs: number;
  readonly prefillMs: number;
}

export interface Usage extends PrefillUsage {
  readonly completionTokens: number;
  readonly decodeMs: number;
  /** From the call to the first token. */
  readonly timeToFirstTokenMs: number;
  /** Of the tokens after the first; 0 when there are none. */
  readonly tokensPerSecond: number;
  /** The sequence's constant-size state with its windows, and the keys and values that grow with its tokens. */
  readonly stateBytes: number;
  readonly kvBytes: number;
}
