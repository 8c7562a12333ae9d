// One question on many documents, by several worker processes, over a BullMQ queue in Redis:
//
//   export REDIS_URL=redis://127.0.0.1:6379
//   node examples/batch.mjs 'In short:' reports/*.txt > answers.jsonl
//
// A line of JSON for each document. Workers are processes with a model each (WORKERS, default 2) and may as well run on
// other machines that see the same files: start them with `node examples/batch.mjs --work`. The job of a worker that
// died is given to another one after a few seconds, and that of one that failed is tried three times.
// Needs: npm install bullmq ioredis.
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { Queue, QueueEvents, Worker } from 'bullmq';
import Redis from 'ioredis';
import { load } from 'linattn';

const queueName = 'linattn-batch';
const [, program, ...args] = process.argv;
if (process.env.REDIS_URL === undefined || (args[0] !== '--work' && args.length < 2)) {
  console.error('usage: REDIS_URL=redis://... node batch.mjs <question> <file> ... | --work');
  process.exit(2);
}
const redis = () => new Redis(process.env.REDIS_URL, { maxRetriesPerRequest: null }); // as BullMQ's workers want it

async function work() {
  const model = await load();
  const answer = async ({ data: { file, question } }) => {
    console.error(`${process.pid} reads ${file}`);
    const prompt = `${await readFile(file, 'utf8')}\n\n${question}`;
    const { text, usage } = await model.generate({ prompt, maxTokens: 60, temperature: 0 }).result;
    return { file, text, promptTokens: usage.promptTokens, worker: process.pid };
  };
  const connection = redis();
  const worker = new Worker(queueName, answer, {
    connection,
    concurrency: 4, // documents that the model reads at the same time
    lockDuration: 6000, // a worker that is silent for so long is dead; the lock is renewed while it lives
    stalledInterval: 3000,
    maxStalledCount: 3,
  });
  process.once('SIGTERM', async () => {
    await worker.close(); // when its jobs have ended
    connection.disconnect();
    await model.dispose();
  });
}

async function batch(question, files) {
  const count = Number(process.env.WORKERS ?? 2);
  const workers = Array.from({ length: count }, () =>
    spawn(process.execPath, [program, '--work'], { stdio: ['ignore', 'ignore', 'inherit'] }),
  );
  const connections = [redis(), redis()];
  const queue = new Queue(queueName, { connection: connections[0] });
  const events = new QueueEvents(queueName, { connection: connections[1] });
  await events.waitUntilReady();
  const jobs = await queue.addBulk(
    files.map((file) => ({
      name: 'answer',
      data: { file: path.resolve(file), question },
      opts: { jobId: randomUUID(), attempts: 3, removeOnComplete: { age: 3600 }, removeOnFail: { age: 3600 } },
    })),
  );
  const answers = jobs.map(async (job) => {
    try {
      console.log(JSON.stringify(await job.waitUntilFinished(events)));
    } catch (error) {
      console.log(JSON.stringify({ file: job.data.file, error: error.message }));
      process.exitCode = 1;
    }
  });
  const lost = Promise.all(workers.map((worker) => once(worker, 'exit'))).then(() => {
    throw new Error('all workers have ended');
  });
  await Promise.race([Promise.all(answers), lost]);
  for (const worker of workers) worker.kill('SIGTERM');
  await Promise.all([queue.close(), events.close()]);
  for (const connection of connections) connection.disconnect();
}

await (args[0] === '--work' ? work() : batch(args[0], args.slice(1)));
