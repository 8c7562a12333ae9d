// Reads a document once and asks about it as often as you like, now and later:
//
//   node examples/ask-document.mjs report.txt 'In short:' 'The end of it is'
//
// The state that the document leaves is saved beside it (report.txt.state): the next run starts from there.
import { readFile, stat } from 'node:fs/promises';
import { load } from 'linattn';

const [, , file, ...questions] = process.argv;
if (file === undefined || questions.length === 0) {
  console.error('usage: node ask-document.mjs <file> <question> ...');
  process.exit(2);
}
const stateFile = `${file}.state`;

/** True when the state is there and the document was not changed after it was saved. */
async function isRead() {
  const [state, document] = await Promise.all([stat(stateFile).catch(() => undefined), stat(file)]);
  return state !== undefined && state.mtimeMs >= document.mtimeMs;
}

const model = await load();
try {
  let snapshot;
  if (await isRead()) {
    snapshot = await model.loadSnapshot(stateFile);
  } else {
    const session = model.createSession();
    const { promptTokens, prefillMs } = await session.prefill({ prompt: await readFile(file, 'utf8') });
    console.error(`read ${promptTokens} tokens in ${(prefillMs / 1000).toFixed(1)} s`);
    snapshot = await session.snapshot();
    await session.dispose();
    await snapshot.save(stateFile);
  }
  // Every question has a session of its own, which starts from the document; all are answered at the same time.
  const answers = await Promise.all(
    questions.map(async (question) => {
      const session = model.createSession({ from: snapshot });
      const { text, usage } = await session.generate({ append: `\n\n${question}`, maxTokens: 60, seed: 1 }).result;
      await session.dispose();
      return { question, text, usage };
    }),
  );
  for (const { question, text, usage } of answers) {
    console.log(`${question}${text}\n`);
    console.error(`${usage.cachedTokens} of ${usage.promptTokens} tokens were read before`);
  }
} finally {
  await model.dispose();
}
