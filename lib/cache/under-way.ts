// Work that other work waits for.

export class UnderWay {
  private readonly all = new Set<Promise<unknown>>();

  get isEmpty(): boolean {
    return this.all.size === 0;
  }

  /** `work`, which is under way until it has ended, well or not. */
  add<T>(work: Promise<T>): Promise<T> {
    const end = () => this.all.delete(work);
    this.all.add(work);
    work.then(end, end);
    return work;
  }

  /** Resolves when all that is under way now has ended. */
  async ended(): Promise<void> {
    await Promise.allSettled(this.all);
  }
}
