// Signals: the first asks to end, the second ends at once.
import { EventEmitter } from 'node:events';
import { Interrupts } from '../../lib/cli/signals';

test('the first signal aborts, the second is raised again', () => {
  const source = new EventEmitter();
  const raised: string[] = [];
  const interrupts = new Interrupts();
  interrupts.listen(source, (signal) => raised.push(signal));
  source.emit('SIGTERM');
  expect([interrupts.signal.aborted, interrupts.received, raised]).toEqual([true, 'SIGTERM', []]);
  source.emit('SIGINT');
  expect([interrupts.received, raised]).toEqual(['SIGTERM', ['SIGINT']]);
  expect(source.listenerCount('SIGINT') + source.listenerCount('SIGTERM')).toBe(0);
});

test('stopping takes the listeners away', () => {
  const source = new EventEmitter();
  const stop = new Interrupts().listen(source, () => {});
  expect(source.eventNames()).toEqual(['SIGINT', 'SIGTERM']);
  stop();
  expect(source.eventNames()).toEqual([]);
});

describe('work that may be given up', () => {
  test('gives its value or its error', async () => {
    const interrupts = new Interrupts(20);
    expect(await interrupts.orGiveUp(Promise.resolve(1))).toBe(1);
    await expect(interrupts.orGiveUp(Promise.reject(new Error('no')))).rejects.toThrow('no');
  });

  test('has some time after an interruption, before it and after it began', async () => {
    const interrupts = new Interrupts(60);
    const later = new Promise((resolve) => setTimeout(() => resolve('in time'), 30));
    setTimeout(() => interrupts.interrupt('SIGINT'), 5);
    expect(await interrupts.orGiveUp(later)).toBe('in time');
    expect(await interrupts.orGiveUp(new Promise(() => {}))).toBeUndefined();
  });
});
