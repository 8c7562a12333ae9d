// linattn/ai-sdk: models for the AI SDK. Public exports, nothing else.
/// <reference types="node" preserve="true" />
export { embeddingModel } from './embedding-model';
export { type LanguageModelOptions, languageModel } from './language-model';
