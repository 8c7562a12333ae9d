// How many prompt tokens a step may read while other sequences decode: as many as the device reads in the target time.
import { pageTokens } from '../layers/layer';

export class StepBudget {
  private allowed: number;

  constructor(
    private readonly targetMs: number,
    /** Most tokens of a step. */
    private readonly limit: number,
  ) {
    this.allowed = limit;
  }

  /** At least 64, the grid on which prompts are cut. */
  get tokens(): number {
    return this.allowed;
  }

  /**
   * A step read `tokens` in `ms`. One that took too long shrinks the budget at once. Only a step that used most of the
   * budget lets it grow, at most twofold: a short one tells of the fixed cost of a step, not of a token's.
   */
  measured(tokens: number, ms: number): void {
    const fitting = (tokens * this.targetMs) / Math.max(ms, 0.01);
    if (ms > this.targetMs) {
      this.allowed = Math.max(pageTokens, Math.min(this.allowed, Math.floor(fitting)));
    } else if (tokens > this.allowed * 0.75) {
      const grown = Math.floor(Math.min(2 * this.allowed, fitting));
      this.allowed = Math.min(this.limit, Math.max(this.allowed, grown));
    }
  }
}
