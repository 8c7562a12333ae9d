"""Measures the shipped model on a CPU with reference.py: bits per byte, loss by position, sampled continuations, recall.

python3 evaluate.py bits | position | text | recall --length 4096 --count 100. Writes ../default/eval/<what>.json.
"""
import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from ngram import DATA, HELD_TOKENS, ROW
from reference import HERE, Model
from trials import prompt

MODEL = HERE.parent / "default"
EVAL = MODEL / "eval"
FRESH = 1024
DEEP = 16_384
# Held-out documents longer than DEEP tokens, one or two of every group that has such.
LONG = (("janeaustenr", "Persuasion"), ("web-bible", "Jer"), ("kjv-bible", "Acts"), ("treasury-of-david", "Psalm 104"),
        ("sotu", "1907_theodore_roosevelt_r"))
SPAN = 8192


def documents():
    with open(HERE / "work" / "data" / "heldout.jsonl") as f:
        return [json.loads(line) for line in f]


def heldout(tok):
    """Tokens of each group as ngram.py takes them. Literature is one novel, which is in the repository too."""
    files = {p.stem.split("-")[1]: p for p in sorted(DATA.glob("heldout-*.bin"))}
    groups = {g: np.fromfile(p, np.uint16).astype(np.int64) for g, p in files.items()}
    novel = (HERE.parent.parent / "examples" / "persuasion.txt").read_text("ascii")
    groups.setdefault("literature", np.array(tok.encode(novel).ids))
    return {g: torch.from_numpy(ids[:min(len(ids) - 1, HELD_TOKENS) // ROW * ROW + 1]) for g, ids in groups.items()}


def bits(model, tok):
    """Held-out bits per byte in float32, rows of ROW tokens that each start from nothing."""
    path = EVAL / "bits.json"
    out = json.loads(path.read_text()) if path.exists() else {}
    for group, ids in heldout(tok).items():
        starts = range(0, len(ids) - 1, ROW)
        nats = sum(model.losses(ids[a:a + ROW + 1], 2048).sum().item() for a in starts)
        size = len(tok.decode(ids[1:].tolist(), skip_special_tokens=True).encode())
        out[group] = {"bytes": size, "tokens": len(ids) - 1, "bits_per_byte": round(nats / math.log(2) / size, 4)}
        print(group, out[group], flush=True)
        save("bits", out)


def position(model, tok):
    """The same SPAN tokens of a document, read after the DEEP tokens before them and read in fresh windows of FRESH."""
    rows = []
    for d in documents():
        if (d["source"], d["name"]) not in LONG:
            continue
        ids = torch.tensor(tok.encode(d["text"]).ids)
        if len(ids) < DEEP + 2048:
            continue
        end = min(len(ids), DEEP + SPAN)
        whole = model.losses(ids[:end], 2048)
        count = (end - DEEP) // FRESH
        fresh = torch.cat([model.losses(ids[a - 1:a + FRESH], FRESH) for a in range(DEEP, DEEP + count * FRESH, FRESH)])
        deep = whole[DEEP - 1:DEEP - 1 + count * FRESH]
        row = {"source": d["source"], "name": d["name"], "tokens": end, "compared": count * FRESH,
               "nats_first_1024_of_document": whole[:FRESH].mean().item(),
               "nats_after_16384": deep.mean().item(), "nats_same_text_in_first_1024": fresh.mean().item()}
        rows.append({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
        print(rows[-1], flush=True)
        save("position", rows)
    return rows


def text(model, tok, count=20, context=96, new=96):
    """One continuation of each of `count` held-out documents, from one third of its length on; seeds 0 to count - 1."""
    docs, rows = documents(), []
    groups = ["literature", "speeches", "scripture", "commentary", "reference", "manuals"]
    for i in range(count):
        pool = [d for d in docs if d["group"] == groups[i % 6] and len(d["text"]) > 6000]
        d = pool[i // 6 * 7 % len(pool)]
        cut = d["text"].index(" ", len(d["text"]) * (1 + i // 6) // 5)
        ids = tok.encode(d["text"][cut:cut + 4 * context * 2]).ids[:context]
        state, gen = model.start(), torch.Generator().manual_seed(i)
        h = model.hidden(torch.tensor(ids), state)[-1:]
        out = []
        for _ in range(new):
            p, order = (model.logits(h)[0] / 0.8).softmax(-1).sort(descending=True)
            p[p.cumsum(-1) - p > 0.95] = 0
            token = int(order[torch.multinomial(p, 1, generator=gen)])
            if token == 0:
                break
            out.append(token)
            h = model.hidden(torch.tensor([token]), state)
        rows.append({"group": d["group"], "source": d["source"], "name": d["name"], "seed": i, "prompt": tok.decode(ids),
                     "continuation": tok.decode(out)})
        print(json.dumps(rows[-1]), flush=True)
    save("text", rows)


def recall(model, tok, length, count):
    """Trials whose greedy continuation starts with the answer."""
    spec = json.loads((EVAL / "trials.json").read_text())
    filler = (HERE.parent.parent / spec["filler"]).read_text("ascii")
    for task in spec["task"]:
        right = 0
        for n, t in enumerate(spec["task"][task][str(length)][:count]):
            p, a = tok.encode(prompt(filler, t)).ids, tok.encode(t["answer"]).ids
            state, ids, out = model.start(), torch.tensor(p + a[:-1]), []
            for x in ids.split(2048):
                out.append(model.hidden(x, state)[-len(a):])
            right += model.logits(torch.cat(out)[-len(a):]).argmax(-1).tolist() == a
            if n % 10 == 9 or n + 1 == count:
                print(task, length, right, "of", n + 1, flush=True)


def save(name, value):
    (EVAL / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")


def main():
    args = argparse.ArgumentParser()
    args.add_argument("what", choices=("bits", "position", "text", "recall"))
    args.add_argument("--length", type=int, default=1024)
    args.add_argument("--count", type=int, default=100)
    args = args.parse_args()
    model, tok = Model(MODEL), Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    if args.what == "recall":
        recall(model, tok, args.length, args.count)
    else:
        {"bits": bits, "position": position, "text": text}[args.what](model, tok)


if __name__ == "__main__":
    main()
