// A conversation that any process can go on with: the state after each turn lies in Redis.
//
//   export REDIS_URL=redis://127.0.0.1:6379
//   node examples/resume-from-redis.mjs story-1 'Once upon a time there was a king'
//   node examples/resume-from-redis.mjs story-1 ' His daughter'
//
// The second run reads what is new only, on whichever machine it happens. Needs: npm install ioredis.
// Values of Redis end at 512 MB; states of models whose keys and values grow can be longer: load({ prefixCache: { store:
// new RedisStore(redis) } }) cuts them up.
import Redis from 'ioredis';
import { load } from 'linattn';

const [, , id, text] = process.argv;
if (text === undefined || process.env.REDIS_URL === undefined) {
  console.error('usage: REDIS_URL=redis://... node resume-from-redis.mjs <conversation> <text>');
  process.exit(2);
}
const keptSeconds = 7 * 24 * 3600;
const key = `conversation:${id}`;

const redis = new Redis(process.env.REDIS_URL);
const model = await load({ maxSequences: 1 });
try {
  await redis.watch(key); // what is written below counts only if nobody else has written the conversation meanwhile
  const saved = await redis.getBuffer(key);
  const from = saved === null ? undefined : await model.loadSnapshot(saved);
  const session = model.createSession({ from });
  const run = session.generate({ ...(from ? { append: text } : { prompt: text }), maxTokens: 60, seed: 1 });
  for await (const { text: piece } of run) process.stdout.write(piece);
  process.stdout.write('\n');

  const snapshot = await session.snapshot();
  const state = Buffer.from(await snapshot.serialize());
  const written = await redis.multi().set(key, state, 'EX', keptSeconds).exec();
  const { usage } = await run.result;
  console.error(
    `${usage.cachedTokens} of ${usage.promptTokens} tokens were read before; the state has ${state.length} bytes`,
  );
  if (written === null) {
    console.error(`${id} went on elsewhere meanwhile: this turn is not part of it`);
    process.exitCode = 1;
  }
} finally {
  redis.disconnect();
  await model.dispose();
}
