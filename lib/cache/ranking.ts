// What a cache gives up first: greedy-dual with frequencies (L. Cherkasova, "Improving WWW proxies performance with
// greedy-dual-size-frequency caching policy", 1998, with sizes and costs of one). A state's priority is its count of uses
// plus the priority of the last state that was given up: of two that were used as often the one used less recently goes,
// one that many have used stays longer, and not for ever.

export interface Ranked {
  uses: number;
  priority: number;
  usedAt: number;
}

export class Ranking {
  private clock = 0;
  private time = 0;

  use(one: Ranked): void {
    one.uses++;
    one.priority = this.clock + one.uses;
    one.usedAt = ++this.time;
  }

  /** The one to give up first. */
  least<R extends Ranked>(among: Iterable<R>): R | undefined {
    let least: R | undefined;
    for (const one of among) {
      const order = least === undefined ? -1 : one.priority - least.priority || one.usedAt - least.usedAt;
      if (order < 0) least = one;
    }
    return least;
  }

  givenUp(one: Ranked): void {
    this.clock = Math.max(this.clock, one.priority);
  }
}
