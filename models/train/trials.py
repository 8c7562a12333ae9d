"""Writes the recall trials: 100 for each length, over one held-out document, with and without distracting facts.

Input: ../../examples/persuasion.txt (ASCII, so that characters are bytes) and the tokenizer. Output: trials.json in
../default/eval. A trial's prompt is made by inserting each `facts` text at its offset into filler[start:end] and then
appending `question`; the answer is `answer`, greedily decoded. See README.md.
"""
import bisect
import json
import random
import sys
from pathlib import Path

from tokenizers import Tokenizer

import recall

HERE = Path(__file__).parent
MODEL = HERE.parent / "default"
FILLER = HERE.parent.parent / "examples" / "persuasion.txt"
LENGTHS = (1024, 4096, 16384, 65536)
TRIALS = 100
DISTRACTORS = 3


def prompt(filler: str, trial: dict) -> str:
    out, at = [], trial["start"]
    for offset, text in trial["facts"]:
        out += [filler[at:offset], text]
        at = offset
    return "".join([*out, filler[at:trial["end"]], trial["question"]])


def make(rng, tok, breaks, token_at, length, distractors):
    triples = recall.facts(rng, 1 + distractors, evaluation=True)
    a, e, v = triples[0]
    texts = [f"\nThe {a} of {e} is {v}.\n" for a, e, v in triples]
    question = f"\nQuestion: What is the {a} of {e}?\nAnswer:"
    room = length - sum(len(x.ids) for x in tok.encode_batch([*texts, question]))
    last = bisect.bisect_right(token_at, token_at[-1] - room) - 1
    i = rng.randrange(0, last)
    j = max(bisect.bisect_right(token_at, token_at[i] + room) - 1, i + 1)
    # The asked fact stands in the first twentieth, the others anywhere.
    near = bisect.bisect_right(token_at, token_at[i] + max(room // 20, 1)) - 1
    facts = [(breaks[rng.randint(i, max(near, i))], texts[0])]
    facts += [(breaks[rng.randrange(i, j)], t) for t in texts[1:]]
    return {"start": breaks[i], "end": breaks[j], "facts": sorted(facts), "question": question, "answer": f" {v}"}


def main():
    filler = FILLER.read_text("ascii")
    tok = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    encoded = tok.encode(filler)
    starts = [o[0] for o in encoded.offsets]
    breaks = [m + 1 for m, c in enumerate(filler) if c == "\n" and filler[m + 1:m + 2] not in ("\n", "")]
    token_at = [bisect.bisect_left(starts, b) for b in breaks]
    rng = random.Random(20_000)
    out = {"filler": "examples/persuasion.txt", "task": {}}
    for name, distractors in (("single", 0), ("distractors", DISTRACTORS)):
        for length in LENGTHS:
            trials = [make(rng, tok, breaks, token_at, length, distractors) for _ in range(TRIALS)]
            sizes = [len(tok.encode(prompt(filler, t)).ids) for t in (trials if length < 5000 else trials[:5])]
            print(name, length, "prompt tokens", min(sizes), max(sizes), file=sys.stderr)
            out["task"].setdefault(name, {})[str(length)] = trials
    (MODEL / "eval").mkdir(parents=True, exist_ok=True)
    (MODEL / "eval" / "trials.json").write_text(json.dumps(out, separators=(",", ":")).replace('{"start"', '\n{"start"') + "\n")


if __name__ == "__main__":
    main()
