"""Baselines on the held-out text: a 5-gram model with back-off trained on the same tokens, and xz -9e.

The 5-gram is interpolated modified Kneser-Ney over the tokenizer's tokens (Chen and Goodman 1999), down to the uniform
distribution, so every probability is proper. Both see what train.py's held-out loss sees: the first HELD_TOKENS tokens
of every group, in whole rows of 4,096. Reads work/data; writes ../default/eval/baselines.json.
"""
import json
import subprocess
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

DATA = Path(__file__).parent / "work" / "data"
ORDER = 5
HELD_TOKENS, ROW = 131_072, 4096
VOCAB = 8192


def discounts(counts):
    n1, n2, n3, n4 = (int((counts == k).sum()) for k in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    return np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])


class Level:
    """One order: sorted keys (context id * VOCAB + token), their counts, and the sums over each context."""

    def __init__(self, keys, counts, contexts):
        self.keys, self.counts = keys, counts
        d = discounts(counts)
        self.discount = d[np.minimum(counts, 3)]
        context = (keys // VOCAB).astype(np.int64)
        self.total = np.bincount(context, counts, contexts)
        self.spare = np.bincount(context, self.discount, contexts)

    def probability(self, index, context, lower):
        """index: place of the n-gram in keys or -1; context: id of its context or -1; lower: p of the shorter n-gram."""
        known = (context >= 0) & (self.total[np.maximum(context, 0)] > 0)
        c = np.where(known, context, 0)
        seen = np.where(index >= 0, self.counts[index] - self.discount[index], 0.0)
        return np.where(known, (seen + self.spare[c] * lower) / np.maximum(self.total[c], 1), lower)


def find(keys, wanted):
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, -1)


def main():
    train = np.concatenate([np.fromfile(p, np.uint16) for p in sorted(DATA.glob("train-*.bin"))]).astype(np.int64)
    held = {p.stem.split("-")[1]: np.fromfile(p, np.uint16).astype(np.int64) for p in sorted(DATA.glob("heldout-*.bin"))}
    for g, h in held.items():
        held[g] = h[:min(len(h) - 1, HELD_TOKENS) // ROW * ROW + 1]
    ids, keys = train.astype(np.int32), np.arange(VOCAB)
    place = {g: h.copy() for g, h in held.items()}
    p = {g: np.full(len(h), 1 / VOCAB) for g, h in held.items()}
    below = None
    for n in range(1, ORDER + 1):
        # Keys of order n + 1 give order n its continuation counts (raw counts at the top order).
        if n < ORDER:
            pair = ids[:-1].astype(np.int64) * VOCAB + train[len(train) - len(ids) + 1:]
            next_keys, inverse = np.unique(pair, return_inverse=True)
            suffix = np.empty(len(next_keys), np.int32)
            suffix[inverse] = ids[1:]
            counts = np.bincount(suffix, minlength=len(keys))
        else:
            counts = np.bincount(ids, minlength=len(keys))
        # An n-gram seen only at the very start has no left neighbour; it counts once.
        counts = np.maximum(counts, 0 if n == 1 else 1)
        level = Level(keys, counts, 1 if n == 1 else below)
        for g, h in held.items():
            if n == 1:
                context, index = np.zeros(len(h), np.int64), h
            else:
                context = np.concatenate([[-1], place[g][:-1]])
                index = np.where(context >= 0, find(keys, context * VOCAB + h), -1)
                place[g] = index
            p[g] = level.probability(index, context, p[g])
        print("order", n, len(keys), "entries", flush=True)
        if n < ORDER:
            below = len(keys)
            keys, ids = next_keys, inverse.astype(np.int32)
    tok = Tokenizer.from_file(str(DATA / "tokenizer.json"))
    out = {}
    for g, h in held.items():
        data = tok.decode(h[1:].tolist(), skip_special_tokens=True).encode()
        xz = len(subprocess.run(["xz", "-9e", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout)
        out[g] = {"bytes": len(data), "tokens": len(h) - 1, "xz_bits_per_byte": round(8 * xz / len(data), 4),
                  "5gram_bits_per_byte": round(float(-np.log2(p[g][1:]).sum()) / len(data), 4)}
        print(g, out[g], flush=True)
    (Path(__file__).parents[1] / "default" / "eval" / "baselines.json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
