// The part of the AI SDK's provider specification, version 4, that models of text have to do with, so that no package of
// it is needed: https://github.com/vercel/ai/tree/main/packages/provider/src. A test holds them against the real types.

export interface Warning {
  type: 'unsupported';
  feature: string;
  details?: string;
}

export interface Part {
  readonly type: string;
  readonly text?: string;
  readonly data?: unknown;
}

export interface PromptMessage {
  readonly role: 'system' | 'user' | 'assistant' | 'tool';
  readonly content: string | readonly Part[];
}

export interface LanguageModelCall {
  readonly prompt: readonly PromptMessage[];
  readonly maxOutputTokens?: number | undefined;
  readonly temperature?: number | undefined;
  readonly stopSequences?: readonly string[] | undefined;
  readonly topP?: number | undefined;
  readonly topK?: number | undefined;
  readonly presencePenalty?: number | undefined;
  readonly frequencyPenalty?: number | undefined;
  readonly responseFormat?: { readonly type: string } | undefined;
  readonly seed?: number | undefined;
  readonly tools?: readonly unknown[] | undefined;
  readonly abortSignal?: AbortSignal | undefined;
  readonly providerOptions?: Readonly<Record<string, Readonly<Record<string, unknown>>>> | undefined;
}

export interface FinishReason {
  unified: 'stop' | 'length' | 'other';
  raw: string;
}

export interface LanguageModelUsage {
  inputTokens: { total: number; noCache: number; cacheRead: number; cacheWrite: undefined };
  outputTokens: { total: number; text: number; reasoning: undefined };
}

export type ProviderMetadata = Record<string, Record<string, number>>;

export interface LanguageModelResult {
  content: { type: 'text'; text: string }[];
  finishReason: FinishReason;
  usage: LanguageModelUsage;
  providerMetadata: ProviderMetadata;
  warnings: Warning[];
}

export type StreamPart =
  | { type: 'stream-start'; warnings: Warning[] }
  | { type: 'text-start'; id: string }
  | { type: 'text-delta'; id: string; delta: string }
  | { type: 'text-end'; id: string }
  | { type: 'finish'; finishReason: FinishReason; usage: LanguageModelUsage; providerMetadata: ProviderMetadata }
  | { type: 'error'; error: unknown };

export interface LanguageModel {
  readonly specificationVersion: 'v4';
  readonly provider: string;
  readonly modelId: string;
  readonly supportedUrls: Record<string, RegExp[]>;
  doGenerate(options: LanguageModelCall): Promise<LanguageModelResult>;
  doStream(options: LanguageModelCall): Promise<{ stream: ReadableStream<StreamPart> }>;
}

export interface EmbeddingCall {
  readonly values: readonly string[];
  readonly dimensions?: number | undefined;
  readonly abortSignal?: AbortSignal | undefined;
}

export interface EmbeddingModel {
  readonly specificationVersion: 'v4';
  readonly provider: string;
  readonly modelId: string;
  readonly maxEmbeddingsPerCall: number;
  readonly supportsParallelCalls: boolean;
  doEmbed(options: EmbeddingCall): Promise<{ embeddings: number[][]; usage: { tokens: number }; warnings: Warning[] }>;
}
