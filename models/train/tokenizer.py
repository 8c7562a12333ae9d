"""Trains the byte-level BPE tokenizer (8192 entries, single digits) and encodes the corpus as uint16 token files.

Reads work/data/*.jsonl. Writes work/data/tokenizer.json, train-<group>.bin and heldout-<group>.bin (uint16, every
document followed by token 0, <|endoftext|>). With --shipped it takes the default model's tokenizer instead of training
one, as its evaluation needs: two trainings on the same text differ where merges are equally frequent.
"""
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).parent
DATA = HERE / "work" / "data"
SHIPPED = HERE.parent / "default" / "tokenizer.json"
END = "<|endoftext|>"


def rows(name):
    with open(DATA / name) as f:
        for line in f:
            yield json.loads(line)


def training_text():
    """Prose whole, manuals thinned, so that the vocabulary is mostly English and not identifiers."""
    for i, row in enumerate(rows("train.jsonl")):
        if row["group"] != "manuals" or i % 4 == 0:
            for at in range(0, len(row["text"]), 20_000):
                yield row["text"][at:at + 20_000]


def trained():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(training_text(), trainers.BpeTrainer(
        vocab_size=8192, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), min_frequency=2))
    return tok


def main():
    tok = Tokenizer.from_file(str(SHIPPED)) if "--shipped" in sys.argv[1:] else trained()
    tok.save(str(DATA / "tokenizer.json"))
    for split in ("train", "heldout"):
        out, size = defaultdict(list), defaultdict(int)
        batch = list(rows(f"{split}.jsonl"))
        for at in range(0, len(batch), 64):
            part = batch[at:at + 64]
            for row, enc in zip(part, tok.encode_batch([r["text"] for r in part])):
                out[row["group"]] += [np.array(enc.ids, np.uint16), np.zeros(1, np.uint16)]
                size[row["group"]] += len(row["text"].encode())
        for group, parts in out.items():
            ids = np.concatenate(parts)
            ids.tofile(DATA / f"{split}-{group}.bin")
            print(split, group, len(ids), "tokens", round(size[group] / len(ids), 3), "bytes per token")


if __name__ == "__main__":
    main()
