// A service of your own around one model, with Express: answers are streamed as server-sent events.
//
//   PORT=3000 node examples/service.mjs
//   curl -N localhost:3000/complete -H 'content-type: application/json' -d '{"prompt": "Once upon a time", "maxTokens": 60}'
//
// One model is enough for all clients: it batches what comes at the same time, and texts that begin alike are read once
// (prefixCache). A client that leaves ends its generation. SIGTERM lets what runs end, for at most ten seconds.
// Needs: npm install express. For OpenAI's endpoints there is `linattn serve`.
import { once } from 'node:events';
import express from 'express';
import { load } from 'linattn';

const drainMs = 10_000;
const model = await load({ maxSequences: 16, scheduling: { maxQueued: 64 }, prefixCache: {} });
const running = new Set();

const app = express();
app.use(express.json({ limit: '8mb' }));

app.get('/health', (_, response) => response.json({ status: 'ok', running: running.size }));

app.post('/complete', async (request, response) => {
  const { prompt, maxTokens = 200 } = request.body ?? {};
  const abort = new AbortController();
  const { signal } = abort;
  response.once('close', () => abort.abort());
  running.add(abort);
  const event = (data) => response.write(`data: ${JSON.stringify(data)}\n\n`);
  try {
    const run = model.generate({ prompt, maxTokens, signal }); // throws when the arguments are wrong: a status can say so
    response.set({ 'content-type': 'text/event-stream', 'cache-control': 'no-cache', 'x-accel-buffering': 'no' });
    for await (const { text } of run) {
      if (text !== '' && !event({ text })) await once(response, 'drain', { signal }); // a slow reader
    }
    const { finishReason, usage } = await run.result;
    event({ finishReason, usage });
    response.end();
  } catch (error) {
    if (response.destroyed) return; // the client left
    if (!response.headersSent) throw error;
    event({ error: signal.aborted ? 'the service is shutting down' : error.message });
    response.end();
  } finally {
    running.delete(abort);
  }
});

const statuses = { ERR_ARGUMENT: 400, ERR_QUEUE_FULL: 429, ERR_OUT_OF_MEMORY: 503 };
app.use((error, _request, response, _next) => {
  const status = statuses[error.code] ?? error.status ?? 500; // error.status: of express.json()
  if (status === 500) console.error(error);
  response.status(status).json({ error: status === 500 ? 'the service failed' : error.message });
});

const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1');
await once(server, 'listening');
console.log(`listening on http://127.0.0.1:${server.address().port}`);

process.once('SIGTERM', async () => {
  const late = setTimeout(() => {
    for (const abort of running) abort.abort();
  }, drainMs);
  const closed = once(server, 'close');
  server.close(); // no new connections; those that wait for nothing are closed
  await closed;
  clearTimeout(late);
  await model.dispose();
});
