// Text of a generation, held back where it could still become a stop string.
import type { TextTokenizer } from '../tokenizer/tokenizer';
import type { StopMatcher } from './stop';

export class TextOutput {
  all = '';
  private readonly stream: ReturnType<TextTokenizer['textStream']> | undefined;

  constructor(
    tokenizer: TextTokenizer | undefined,
    private readonly stop: StopMatcher,
  ) {
    this.stream = tokenizer?.textStream();
  }

  get stopped(): boolean {
    return this.stop.matched !== undefined;
  }

  /** The text that can be shown after this token; `last` gives out what was held back. */
  push(token: number, isStop: boolean, last: boolean): string {
    if (this.stream === undefined) return '';
    let shown = isStop ? '' : this.stop.push(this.stream.push(token));
    if (last && !this.stopped) shown += this.stop.push(this.stream.flush());
    if (last && !this.stopped) shown += this.stop.flush();
    this.all += shown;
    return shown;
  }
}
