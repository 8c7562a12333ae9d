// Retrieval-augmented answers: finds the passages of a document that fit a question, and answers from these alone.
//
//   node examples/answer-from-passages.mjs report.txt 'Who signed the contract?'
//
// The embeddings come from the model, the vector index is usearch; it stays beside the document (report.txt.index) for
// the next question. Needs: npm install usearch. The default model was not trained for embeddings: it finds passages that
// share rare words with the question. A document that fits into one prompt is better read as a whole: ask-document.mjs.
import { readFile, rename, stat } from 'node:fs/promises';
import { load } from 'linattn';
import { Index, MetricKind } from 'usearch';

const [, , file, question] = process.argv;
if (question === undefined) {
  console.error('usage: node answer-from-passages.mjs <file> <question>');
  process.exit(2);
}
const indexFile = `${file}.index`;
const passageLength = 300; // characters
const wanted = 3;

/** Paragraphs, joined while they are short, each with the number of its first line. */
function passagesOf(document) {
  const passages = [];
  let line = 1;
  for (const paragraph of document.split('\n\n')) {
    const last = passages.at(-1);
    if (last !== undefined && last.text.length + paragraph.length < passageLength) last.text += `\n\n${paragraph}`;
    else if (paragraph.trim() !== '') passages.push({ line, text: paragraph });
    line += paragraph.split('\n').length + 1;
  }
  return passages;
}

/** True when the index is there and the document was not changed after it was made. */
async function isIndexed() {
  const [index, document] = await Promise.all([stat(indexFile).catch(() => undefined), stat(file)]);
  return index !== undefined && index.mtimeMs >= document.mtimeMs;
}

const model = await load();
try {
  const passages = passagesOf(await readFile(file, 'utf8'));
  const asked = await model.embed({ prompt: question });
  const index = new Index(asked.length, MetricKind.Cos);
  if (await isIndexed()) {
    index.load(indexFile);
  } else {
    for (const [i, { text }] of passages.entries()) index.add(BigInt(i), await model.embed({ prompt: text }));
    index.save(`${indexFile}.new`);
    await rename(`${indexFile}.new`, indexFile);
    console.error(`indexed ${passages.length} passages`);
  }

  const { keys, distances } = index.search(asked, Math.min(wanted, passages.length), 0);
  const sources = [...keys].map((key, i) => ({ ...passages[Number(key)], distance: distances[i] }));
  const context = sources.toReversed().map(({ text }) => text); // the best one next to the question
  const content = [...context, `Question: ${question}`].join('\n\n');
  const input = model.tokenizer.hasChatTemplate
    ? { messages: [{ role: 'user', content }] }
    : { prompt: `${content}\nAnswer:`, stop: '\n' };
  const { text } = await model.generate({ ...input, maxTokens: 60, temperature: 0 }).result;
  console.log(text.trim());
  for (const { line, distance, text: source } of sources) {
    console.log(`  ${file}:${line} (distance ${distance.toFixed(3)}): ${source.slice(0, 80).replaceAll('\n', ' ')}`);
  }
} finally {
  await model.dispose();
}
