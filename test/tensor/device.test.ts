// Devices that are not there say why, and the cpu does not mind.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { deviceOf, timed } from '../../lib/tensor/device';
import { thrown } from '../support/held';
import { runProgram } from '../support/programs';

const addonFile = path.join(__dirname, '..', '..', 'prebuilds', `${process.platform}-${process.arch}`, 'linattn.node');
let scratch: string;
beforeAll(() => {
  scratch = mkdtempSync(path.join(tmpdir(), 'linattn-device-'));
  writeFileSync(path.join(scratch, 'text.so'), 'no library');
});
afterAll(() => rmSync(scratch, { recursive: true }));

test.each([
  ['that is absent', () => path.join(scratch, 'absent.so'), /absent\.so is not there/],
  ['that is no library', () => path.join(scratch, 'text.so'), /text\.so.*(invalid|too short)/],
  ['that is another library', () => addonFile, /linattn\.node is of another build/],
])('a CUDA backend %s', async (_, file, reason) => {
  const env = { LINATTN_CUDA_LIBRARY: file(), LINATTN_DEVICE: 'auto' };
  const { printed } = await runProgram<{ name: string; unavailable: string; error: object }>('devices', [], [], env);
  expect(printed).toMatchObject({ name: 'cuda', unavailable: expect.stringMatching(reason) });
  const message = `device: cuda is not available: ${printed.unavailable}`;
  expect(printed.error).toEqual({ code: 'ERR_DEVICE', message });
});

test('names of devices', async () => {
  expect(deviceOf('cpu').name).toBe('cpu');
  for (const name of ['gpu', 'cuda:x', 'cuda:99']) {
    expect(await thrown(() => deviceOf(name as 'cuda'))).toMatchObject({ code: 'ERR_DEVICE' });
  }
});

test("time by the device's clock", async () => {
  const waits = () => new Promise<void>((resolve) => void setTimeout(resolve, 30));
  const started = performance.now();
  const milliseconds = await timed('cpu', waits);
  expect(milliseconds).toBeGreaterThan(20);
  expect(milliseconds).toBeLessThan(performance.now() - started + 1);
});
