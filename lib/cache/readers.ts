// Who reads which text at the moment: of many sessions that come with the same beginning, one reads it and the others wait.

interface Reader {
  readonly tokens: Int32Array;
  readonly done: Promise<void>;
}

export class Readers {
  private readonly readers = new Set<Reader>();

  /** Says that `tokens` are being read. Returns what says that this has ended, well or not. */
  begin(tokens: Int32Array): () => void {
    let end = () => {};
    const done = new Promise<void>((resolve) => {
      end = resolve;
    });
    const reader = { tokens, done };
    this.readers.add(reader);
    return () => {
      this.readers.delete(reader);
      end();
    };
  }

  /** Resolves when one that reads what `tokens` begin with, beyond the first `known`, has ended; undefined: there is none. */
  ended(tokens: Int32Array, known: number): Promise<void> | undefined {
    for (const { tokens: read, done } of this.readers) {
      const isUseful = read.length > known && read.length <= tokens.length;
      if (isUseful && read.every((token, i) => token === tokens[i])) return done;
    }
    return undefined;
  }
}
