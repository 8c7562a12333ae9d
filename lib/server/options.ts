// What a server is told, and what it takes for granted.
export interface ServerOptions {
  /** Default 127.0.0.1: nobody but this machine. */
  readonly host: string;
  /** 0: any that is free. */
  readonly port: number;
  /** The `model` of requests and responses. */
  readonly modelName: string;
  /** What `Authorization: Bearer` must carry; without one, everybody is let in. */
  readonly apiKey?: string;
  readonly maxBodyBytes: number;
  readonly maxPromptTokens: number;
  /** The most that max_tokens may ask for. */
  readonly maxCompletionTokens: number;
  /** Requests that read or write at once. */
  readonly maxConcurrency: number;
  /** Requests that wait for their turn; one more is answered 429. */
  readonly maxQueue: number;
  /** Sessions held between requests. */
  readonly maxSessions: number;
  /** A session that nobody used for this long is dropped. */
  readonly sessionTtlMs: number;
  /** Where named states are saved and restored; without it, states travel as bytes only. */
  readonly stateFolder?: string;
  /** Told of failures that are the server's own. */
  readonly onError?: (error: unknown) => void;
}

export const serverDefaults = {
  host: '127.0.0.1',
  port: 8080,
  maxBodyBytes: 8 * 2 ** 20,
  maxPromptTokens: 262_144,
  maxCompletionTokens: 8192,
  maxConcurrency: 16,
  maxQueue: 64,
  maxSessions: 16,
  sessionTtlMs: 3_600_000,
} as const;

/** Sequences that the model must be loaded with: one a running request, one a session. */
export const sequencesOf = (options: Pick<ServerOptions, 'maxConcurrency' | 'maxSessions'>): number =>
  options.maxConcurrency + options.maxSessions;
