// A state of the prefix cache, and where it is.
import type { PrefixNode } from '../cache/prefix-tree';
import type { Ranked } from '../cache/ranking';
import type { Checkpoint } from '../state/sequence-store';

/** The pieces of a file, as `framed` gives them. */
export interface SavedState {
  readonly pieces: readonly Uint8Array[];
  readonly byteLength: number;
}

export interface Entry extends Ranked {
  readonly node: PrefixNode<Entry>;
  checkpoint: Checkpoint | undefined;
  /** As a saved state, in the memory of the process. */
  saved: SavedState | undefined;
  isStored: boolean;
  isSaving: boolean;
  /** Asynchronous work on it: until it ends the entry stays in the tree. */
  busy: number;
}

/** One that has no state yet. */
export function newEntry(node: PrefixNode<Entry>): Entry {
  const places = { checkpoint: undefined, saved: undefined, isStored: false, isSaving: false, busy: 0 };
  return { node, ...places, uses: 0, priority: 0, usedAt: 0 };
}
