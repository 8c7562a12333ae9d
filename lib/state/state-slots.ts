// How many states the pool of a model has.

/** Checkpoints that a sequence keeps where there is room. */
export const checkpointsKept = 2;

export interface StateCounts {
  readonly sequences: number;
  readonly snapshots: number;
  /** Checkpoints that a prefix cache holds. */
  readonly cached: number;
}

/**
 * Two halves and one checkpoint for each sequence, and those of snapshots and the cache, whatever they take; and as many
 * more checkpoints, up to `checkpointsKept` a sequence, as `memoryBytes` for all of it have room for.
 */
export function stateSlots(counts: StateCounts, slotBytes: number, memoryBytes: number): number {
  const { sequences, snapshots, cached } = counts;
  const least = sequences * 3 + snapshots + cached;
  const most = sequences * (2 + checkpointsKept) + snapshots + cached;
  return Math.max(least, Math.min(most, Math.floor(memoryBytes / Math.max(slotBytes, 1))));
}
