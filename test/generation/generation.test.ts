// The iterator of a generation, beside what it is fed with.
import { type Chunk, type GenerateResult, GenerationStream } from '../../lib/generation/generation';

const chunk = (token: number): Chunk => ({ text: `${token}`, token, logprob: -1 });

/** A generation that emits when told, and ends with `result` when it is told or left. */
function controlled() {
  let emit: (chunk: Chunk) => void = () => {};
  let end: () => void = () => {};
  let fail: (error: Error) => void = () => {};
  const stream = new GenerationStream(
    (sink) => {
      emit = sink;
      return new Promise<GenerateResult>((resolve, reject) => {
        end = () => resolve({} as GenerateResult);
        fail = reject;
      });
    },
    () => end(),
  );
  return { iterator: stream[Symbol.asyncIterator](), emit: (token: number) => emit(chunk(token)), end, fail };
}

const done = { done: true, value: undefined };

test('calls of next() that do not wait for each other are answered in their order', async () => {
  const { iterator, emit, end } = controlled();
  const answers = [iterator.next(), iterator.next(), iterator.next(), iterator.next()];
  emit(1);
  emit(2);
  await answers[1];
  emit(3);
  end();
  expect(await Promise.all(answers)).toEqual([
    ...[1, 2, 3].map((token) => ({ done: false, value: chunk(token) })),
    done,
  ]);
  expect(await iterator.next()).toEqual(done);
});

test('every call that waits is told of a failure', async () => {
  const { iterator, fail } = controlled();
  const answers = [iterator.next(), iterator.next()];
  fail(new Error('gone'));
  expect((await Promise.allSettled(answers)).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
});

test('return() comes after the calls before it, and is the end', async () => {
  const { iterator, emit } = controlled();
  const answers = [iterator.next(), iterator.next(), iterator.return!(), iterator.next()];
  emit(1);
  emit(2);
  emit(3);
  const values = [1, 2].map((token) => ({ done: false, value: chunk(token) }));
  expect(await Promise.all(answers)).toEqual([...values, done, done]);
});
