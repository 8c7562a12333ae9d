// Asks a model through the AI SDK, which is ESM only, and prints what came. argv: the folder of the model.
import { embedMany, generateText, streamText } from 'ai';
import { load } from 'linattn';
import { embeddingModel, languageModel } from 'linattn/ai-sdk';

const loaded = await load({ model: process.argv[2], maxSequences: 4 });
const model = languageModel(loaded, { modelId: 'tiny' });
const providerOptions = { linattn: { ignoreEos: true } };
const settings = { model, temperature: 0, maxOutputTokens: 12, maxRetries: 0, providerOptions };
const prompt = 'Hello';
const system = 'Be brief.';

const whole = await generateText({ ...settings, system, prompt });
const streamed = streamText({ ...settings, system, prompt });
const deltas = [];
for await (const delta of streamed.textStream) deltas.push(delta);

const session = loaded.createSession();
const kept = { ...settings, model: languageModel(loaded, { session }) };
await generateText({ ...kept, prompt: 'The keeper wrote one line each night.' });
const again = await generateText({ ...kept, prompt: 'The keeper wrote one line each night.' });
await session.dispose();

const leave = new AbortController();
let aborted = false;
const endless = streamText({
  ...settings,
  ...{ prompt, maxOutputTokens: 1_000_000, abortSignal: leave.signal, onAbort: () => (aborted = true) },
});
let seen = 0;
for await (const part of endless.fullStream) if (part.type === 'text-delta' && ++seen === 3) leave.abort();

const { stream } = await model.doStream({
  prompt: [{ role: 'user', content: [{ type: 'text', text: prompt }] }],
  ...{ maxOutputTokens: 1_000_000, providerOptions },
});
const reader = stream.getReader();
await reader.read();
await reader.cancel();

const failed = await generateText({
  ...settings,
  messages: [{ role: 'user', content: [{ type: 'file', mediaType: 'image/png', data: new Uint8Array(4) }] }],
}).catch(({ code }) => code);
const warned = await generateText({ ...settings, prompt, presencePenalty: 0.5 });
const values = ['A ship', 'A boat'];
const vectors = await embedMany({ model: embeddingModel(loaded), values });

// What left early is no sequence of the model any more.
const sessions = Array.from({ length: 4 }, () => loaded.createSession());
await Promise.all(sessions.map((one) => one.dispose()));

const messages = [
  { role: 'system', content: system },
  { role: 'user', content: prompt },
];
const expected = await loaded.generate({ messages, temperature: 0, maxTokens: 12, ignoreEos: true }).result;
const embedded = await Promise.all(values.map((value) => loaded.embed({ prompt: value })));
console.log(
  JSON.stringify({
    expected: { text: expected.text, promptTokens: expected.usage.promptTokens },
    embedded: embedded.map((vector) => Array.from(vector)),
    whole: { text: whole.text, finishReason: whole.finishReason, usage: whole.usage, metadata: whole.providerMetadata },
    streamed: { deltas, usage: await streamed.usage, finishReason: await streamed.finishReason },
    again: again.usage.inputTokenDetails,
    ...{ aborted, failed, warnings: warned.warnings, vectors: vectors.embeddings, tokens: vectors.usage.tokens },
  }),
);
await loaded.dispose();
