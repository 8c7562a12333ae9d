// examples/batch.mjs: all documents are answered by several processes, also when one of these is killed.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { examplesFolder, runExample, startExample, startMs } from '../support/examples';
import { describeWithRedis, type RedisServer, startRedis } from '../support/redis-server';
import { until } from '../support/server';

describeWithRedis('a batch', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'linattn-example-'));
  const novel = readFileSync(path.join(examplesFolder, 'persuasion.txt'), 'utf8');
  const files = Array.from({ length: 6 }, (_, i) => path.join(folder, `${i}.txt`));
  let server: RedisServer;
  beforeAll(async () => {
    for (const [i, file] of files.entries()) writeFileSync(file, novel.slice(i * 9000, i * 9000 + 3000));
    server = await startRedis();
  });
  afterAll(async () => {
    await server.stop();
    rmSync(folder, { recursive: true });
  });
  interface Answer {
    readonly file: string;
    readonly text: string;
    readonly worker: number;
    readonly error?: string;
  }
  const answersOf = (out: string): Answer[] =>
    out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));

  test('the jobs of a worker that is killed are done by the other one', async () => {
    const batch = startExample('batch.mjs', ['In short:', ...files], { REDIS_URL: server.url });
    const startedBy = () =>
      [...batch.printed.err.matchAll(/^(\d+) reads (.*)$/gm)].map(([, id, file]) => ({ id, file }));
    await until(() => startedBy().length > 0, startMs);
    const { id } = startedBy()[0]!;
    process.kill(Number(id), 'SIGKILL');
    const { code, out } = await batch.ended;
    expect(code).toBe(0);
    const answers = answersOf(out);
    expect(answers.map(({ file }) => file).sort()).toEqual(files);
    for (const { text } of answers) expect(text).not.toBe('');
    const lost = startedBy().filter((start) => start.id === id);
    for (const { file } of lost) {
      const answer = answers.find((one) => one.file === file)!;
      if (answer.worker === Number(id)) continue; // it was done before the kill
      expect(startedBy().filter((start) => start.file === file).length).toBeGreaterThan(1);
    }
    expect(answers.some(({ worker }) => worker !== Number(id))).toBe(true);
  });

  test('a file that cannot be read is an error of its own, after three tries', async () => {
    const absent = path.join(folder, 'absent.txt');
    const { code, out, err } = await runExample('batch.mjs', ['In short:', absent, files[0]!], {
      REDIS_URL: server.url,
      WORKERS: '1',
    });
    expect(code).toBe(1);
    const answers = answersOf(out);
    expect(answers).toContainEqual({ file: absent, error: expect.stringContaining('ENOENT') });
    expect(answers).toContainEqual(expect.objectContaining({ file: files[0], text: expect.any(String) }));
    expect(err.match(/absent/g)).toHaveLength(3);
  });

  test('without files it says how it is called', async () => {
    const { code, err } = await runExample('batch.mjs', ['In short:'], { REDIS_URL: server.url });
    expect({ code, err }).toEqual({ code: 2, err: expect.stringContaining('usage') });
  });
});
