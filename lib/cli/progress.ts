// A progress bar on stderr, where that is a terminal and nobody asked for quiet.
import { SingleBar } from 'cli-progress';
import type { Context } from './context';
import type { ReportFlags } from './flags';

const count = new Intl.NumberFormat('en');

export class ProgressDisplay {
  readonly #stream: Context['stderr'];
  readonly #isShown: boolean;
  #bar: SingleBar | undefined;
  #phase = '';
  /** Where the phase was when it was shown first: a known beginning took no time. */
  #first: { readonly done: number; readonly at: number } | undefined;

  constructor({ stderr, env }: Context, flags: Pick<ReportFlags, 'quiet' | 'progress'>) {
    this.#stream = stderr;
    this.#isShown = stderr.isTTY === true && !flags.quiet && flags.progress && env.TERM !== 'dumb';
  }

  /** Shows how far `phase` is; a new phase begins a new bar. */
  show(phase: string, { done, total }: { readonly done: number; readonly total: number }): void {
    if (!this.#isShown) return;
    if (this.#phase !== phase) {
      this.clear();
      this.#phase = phase;
      this.#first = undefined;
      this.#bar = new SingleBar({
        stream: this.#stream,
        format: `${phase} [{bar}] {percentage}% {shown}`,
        barsize: 24,
        clearOnComplete: true,
        hideCursor: true,
        gracefulExit: false, // it would take over SIGINT
      });
      this.#bar.start(total, 0, { shown: '' });
    }
    this.#first ??= { done, at: performance.now() };
    const left = this.#secondsLeft(done, total);
    this.#bar!.setTotal(total);
    this.#bar!.update(done, { shown: `${count.format(done)}/${count.format(total)}${left}` });
  }

  #secondsLeft(done: number, total: number): string {
    const { done: from, at } = this.#first!;
    if (done <= from) return '';
    const seconds = ((performance.now() - at) / 1000) * ((total - done) / (done - from));
    return ` ${Math.ceil(seconds)} s left`;
  }

  /** Takes the bar away. */
  clear(): void {
    this.#bar?.stop();
    this.#bar = undefined;
    this.#phase = '';
  }
}
