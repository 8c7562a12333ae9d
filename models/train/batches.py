"""Training rows: windows of packed documents, and recall rows (facts planted in documents and asked for later).

A row of T tokens is x = row[:-1], y = row[1:]; every target has a weight: 1 for text, 0 for the random value in a
statement, ANSWER_WEIGHT for the tokens of an answer, FILLER_WEIGHT for the text around the facts.
"""
import random
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

import recall

ANSWER_WEIGHT = 10.0
FILLER_WEIGHT = 0.3
RECALL_SHARE = 0.35
TOKENS_PER_STEP = 262_144
# (until this share of the training time, {row length: probability}).
LENGTHS = (
    (0.25, {1024: 0.85, 4096: 0.15}),
    (0.65, {1024: 0.35, 4096: 0.5, 16384: 0.15}),
    (1.01, {1024: 0.15, 4096: 0.35, 16384: 0.4, 65536: 0.1}),
)
GROUP_POWER = 0.75


class Corpus:
    def __init__(self, folder: Path, split: str = "train"):
        self.groups = {p.stem.split("-")[1]: np.fromfile(p, np.uint16) for p in sorted(folder.glob(f"{split}-*.bin"))}
        self.names = list(self.groups)
        size = np.array([len(self.groups[n]) for n in self.names], float) ** GROUP_POWER
        self.share = size / size.sum()

    def window(self, rng: np.random.Generator, length: int) -> np.ndarray:
        ids = self.groups[self.names[rng.choice(len(self.names), p=self.share)]]
        if length >= len(ids):
            ids = np.concatenate([ids] * (length // len(ids) + 2))
        at = rng.integers(0, len(ids) - length)
        return ids[at:at + length]


class RecallRows:
    """Builds recall rows; texts are encoded once each, in small batches."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer):
        self.corpus, self.tok = corpus, tokenizer
        table = [tokenizer.decode([i]) for i in range(tokenizer.get_vocab_size())]
        self.newline = np.array(["\n" in t for t in table])

    def pieces(self, rng: random.Random, count: int):
        """For every fact: (tokens, weights) of its statement, and of each of its questions with the answer."""
        triples = recall.facts(rng, count)
        texts, spans = [], []
        for a, e, v in triples:
            s = rng.choice(recall.STATEMENTS).format(a=a, e=e, v="\0")
            head, tail = s.split("\0")
            head, v = head.rstrip(" "), f" {v}"
            spans.append((len(texts), 2 + rng.randint(1, 2)))
            texts += [f"\n{head}", v, f"{tail}\n"]
            for _ in range(spans[-1][1] - 2 + 1):
                texts += ["\n" + rng.choice(recall.QUESTIONS).format(a=a, e=e), v, "\n"]
        ids = [np.array(x.ids, np.uint16) for x in self.tok.encode_batch(texts)]
        out, at = [], 0
        for _, n in spans:
            parts = []
            for k in range(n):
                a, v, b = ids[at:at + 3]
                at += 3
                w = np.concatenate([np.ones(len(a)), np.full(len(v), ANSWER_WEIGHT if k else 0.0),
                                    np.full(len(b), 1.0)])
                parts.append((np.concatenate([a, v, b]), w.astype(np.float32)))
            out.append(parts)
        return out

    def row(self, rng: random.Random, nrng: np.random.Generator, length: int):
        count = rng.randint(1, max(2, min(24, length // 128)))
        pieces = self.pieces(rng, count)
        if rng.random() < 0.3:
            # A table: all statements together at one place.
            place = rng.random() * 0.6
            at = [(place, i) for i in range(count)]
        else:
            at = [(rng.random() * 0.85, i) for i in range(count)]
        inserts = []
        for pos, i in at:
            inserts.append((pos, pieces[i][0]))
            for k, q in enumerate(pieces[i][1:]):
                inserts.append((1.0 if k == 0 and rng.random() < 0.6 else pos + (1 - pos) * rng.random(), q))
        rng.shuffle(inserts)
        inserts.sort(key=lambda x: x[0])
        used = sum(len(p[0]) for _, p in inserts)
        filler = self.corpus.window(nrng, max(16, length - used))
        breaks = np.flatnonzero(self.newline[filler]) + 1
        breaks = np.append(breaks, len(filler))
        ids, weights, last = [], [], 0
        for pos, (t, w) in inserts:
            cut = int(breaks[min(np.searchsorted(breaks, int(pos * len(filler))), len(breaks) - 1)])
            cut = max(cut, last)
            ids += [filler[last:cut], t]
            weights += [np.full(cut - last, FILLER_WEIGHT, np.float32), w]
            last = cut
        ids.append(filler[last:])
        weights.append(np.full(len(filler) - last, FILLER_WEIGHT, np.float32))
        return np.concatenate(ids)[-length:], np.concatenate(weights)[-length:]


class Steps(torch.utils.data.IterableDataset):
    """Endless training steps: (row length, ids [B, T+1] int64, weights [B, T] float32)."""

    def __init__(self, folder: Path, progress, seed: int):
        self.folder, self.progress, self.seed = folder, progress, seed

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        seed = self.seed * 1000 + (info.id if info else 0)
        rng, nrng = random.Random(seed), np.random.default_rng(seed)
        corpus = Corpus(self.folder)
        recalls = RecallRows(corpus, Tokenizer.from_file(str(self.folder / "tokenizer.json")))
        while True:
            mix = next(m for until, m in LENGTHS if self.progress.value < until)
            length = rng.choices(list(mix), list(mix.values()))[0]
            rows = max(1, TOKENS_PER_STEP // length)
            ids = np.zeros((rows, length + 1), np.int64)
            weights = np.ones((rows, length), np.float32)
            for b in range(rows):
                if rng.random() < RECALL_SHARE:
                    t, w = recalls.row(rng, nrng, length + 1)
                    ids[b, -len(t):] = t
                    weights[b] = 0
                    weights[b, -(len(t) - 1):] = w[1:]
                else:
                    ids[b] = corpus.window(nrng, length + 1)
            yield length, torch.from_numpy(ids), torch.from_numpy(weights)
