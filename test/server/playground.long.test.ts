// The page at / in headless Chromium. Skipped, and counted as that, where there is no chromium; .ci/run installs it.
import { existsSync, rmSync } from 'node:fs';
import { type Served, serve, until } from '../support/server';
import { tinyModelFolder } from '../support/tiny-model';

// Without its types, which need those of a browser.
const { chromium } = require('playwright-core');
const executablePath = '/usr/bin/chromium';
const describeHere = existsSync(executablePath) ? describe : describe.skip;

describeHere('the playground', () => {
  let browser: Awaited<ReturnType<typeof chromium.launch>>;
  let served: Served;
  let page: Awaited<ReturnType<typeof browser.newPage>>;
  let failures: string[];

  beforeAll(async () => {
    browser = await chromium.launch({ executablePath, chromiumSandbox: false });
  });
  afterAll(() => browser.close());
  afterEach(async () => {
    await page.close();
    await served.close();
  });

  async function open(server: Served, mostTokens: number): Promise<void> {
    served = server;
    failures = [];
    page = await browser.newPage();
    page.on('pageerror', (error: Error) => failures.push(String(error)));
    page.on('console', (message: { type(): string; text(): string }) => {
      if (message.type() === 'error') failures.push(message.text());
    });
    await page.goto(served.url);
    await page.fill('#temperature', '0');
    await page.fill('#most', String(mostTokens));
  }
  const text = (id: string) => page.locator(`#${id}`).textContent();
  const shows = (id: string, wanted: string) => page.locator(`#${id}`, { hasText: wanted }).waitFor();
  const idle = () => page.waitForSelector('#send:enabled');
  async function say(prompt: string): Promise<void> {
    await page.fill('#prompt', prompt);
    await page.press('#prompt', 'Enter');
    await shows('talk', prompt);
  }

  test('reads a document, goes on behind it, and shows what it cost', async () => {
    await open(await serve(), 30);
    const story = 'The keeper wrote one line each night. '.repeat(60).trimEnd();
    // A file that is dropped on the page.
    const dropped = await page.evaluateHandle(`(() => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([${JSON.stringify(story)}], 'story.txt', { type: 'text/plain' }));
      return transfer;
    })()`);
    await page.dispatchEvent('#talk', 'drop', { dataTransfer: dropped });
    const [document, prompt] = await Promise.all(
      [`${story}\n\n`, 'One night'].map((part) => served.model.tokenizer.encode(part)),
    );
    const read = `${document!.length} tokens`;
    await shows('context', read);
    await idle();
    await say('One night');
    await idle();
    const tokens = [...document!, ...prompt!];
    const expected = await served.model.generate({ tokens, maxTokens: 30, temperature: 0 }).result;
    expect(await text('talk')).toContain(`One night${expected.text}`);
    expect(await text('cached')).toBe(read);
    expect(await text('state')).toBe('1.7 MiB');
    expect(await text('writing')).toMatch(/^[1-9][\d,]* tokens\/s$/);
    expect(await text('first')).toMatch(/^\d+ ms$/);
    await page.fill('#most', '8000');
    await say('And again');
    await page.click('#stop');
    await idle();
    await until(async () => (await served.metric('linattn_requests_running')) === 0);
    await page.click('#fresh');
    expect(await text('talk')).toBe('');
    expect(failures).toEqual([]);
  });

  test('chats, with a key', async () => {
    const folder = tinyModelFolder();
    await open(await serve({ apiKey: 'sesame' }, folder), 40);
    rmSync(folder, { recursive: true });
    await shows('model', 'is missing');
    failures.length = 0; // the 401
    await page.fill('#key', 'sesame');
    await page.press('#key', 'Tab');
    await shows('model', 'test:');
    await say('<b>Hello</b>');
    await idle();
    const messages = [{ role: 'user' as const, content: '<b>Hello</b>' }];
    const { text: answer } = await served.model.generate({ messages, maxTokens: 40, temperature: 0 }).result;
    expect(await text('talk')).toContain(`<b>Hello</b>\n${answer}`);
    expect(await page.locator('#talk b').count()).toBe(0);
    expect(failures).toEqual([]);
  });
});
