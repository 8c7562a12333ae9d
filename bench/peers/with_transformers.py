"""Whole models: linattn beside Hugging Face transformers with flash-linear-attention installed, one folder, one GPU.

Both load the same folder in bfloat16. Prefill is the time of one forward pass that gives the next token's logits (linattn:
from generate() to its first token, greedy), decode the time of a token at batch 1 behind a short prompt, greedy, as the
program that asks for tokens sees it. In turns: ours, theirs, ours, theirs; the median is told.

    python3 bench/peers/with_transformers.py --model folder --out result.json [--lengths 8192,131072] [--tokens 64] [--runs 3]

--processes of them first compile what flash-linear-attention's autotuning will time. causal-conv1d, which transformers
would also use, is told in the record as there or not.
"""
import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time

import torch
import transformers

import compile_ahead

FOLDER = os.path.dirname(os.path.abspath(__file__))


class Ours:
    """linattn in a process of its own: one JSON request a line, one JSON answer a line."""

    def __init__(self, model):
        command = ["node", os.path.join(FOLDER, "generate.mjs"), model]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("linattn's process ended")
        return json.loads(line)


class Theirs:
    def __init__(self, folder):
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).cuda().eval()

    def prefill(self, tokens):
        ids = torch.tensor([tokens], device="cuda")
        torch.cuda.synchronize()
        begin = time.perf_counter()
        out = self.model(input_ids=ids, use_cache=True, logits_to_keep=1)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        first = token.item()
        return (time.perf_counter() - begin) * 1e3, first, out.past_key_values, token

    def decode(self, tokens, count):
        """Milliseconds a token of `count` tokens after the first."""
        _, _, cache, token = self.prefill(tokens)
        begin = time.perf_counter()
        for _ in range(count):
            out = self.model(input_ids=token, past_key_values=cache, use_cache=True)
            cache, token = out.past_key_values, out.logits[:, -1].argmax(-1, keepdim=True)
            token.item()
        return (time.perf_counter() - begin) * 1e3 / count


def prompt(length):
    """Numbers that both sides can make: a generator of 32 bits."""
    state, tokens = 1, []
    for _ in range(length):
        state = (state * 1664525 + 1013904223) % 2**32
        tokens.append(state >> 16)
    return tokens


def compile_part(options):
    """Compiles a part of the configurations that autotuning will try (compile_ahead.py)."""
    compile_ahead.compile_only(options.part, options.processes)
    with torch.no_grad():
        Theirs(options.model).decode(prompt(1024), 1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--lengths", default="8192,131072")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--processes", type=int, default=min(8, os.cpu_count()), help="that compile ahead; 0: none")
    parser.add_argument("--part", type=int)
    options = parser.parse_args()
    if options.part is not None:
        return compile_part(options)
    begun = time.time()
    parts = [subprocess.Popen([sys.executable, *sys.argv, "--part", str(i)]) for i in range(options.processes)]
    ours, theirs = Ours(options.model), Theirs(options.model)
    for part in parts:
        part.wait()
    print(f"{time.time() - begun:6.1f} s  loaded, compiled ahead", flush=True)
    compile_ahead.tune_quickly()
    lengths = [int(length) for length in options.lengths.split(",")]
    found = lambda name: importlib.util.find_spec(name) is not None
    report = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "transformers": transformers.__version__,
              "fla": found("fla"), "causal_conv1d": found("causal_conv1d"), "rows": []}

    def told(row):
        report["rows"].append(row)
        print(f"{time.time() - begun:6.1f} s", row, flush=True)
        with open(options.out, "w") as file:
            json.dump(report, file, indent=1)

    with torch.no_grad():
        for length in lengths:
            tokens = prompt(length)
            theirs.prefill(tokens), ours(tokens=length, count=1)  # kernels are tuned, memory is there
            mine, other = [], []
            for _ in range(options.runs):
                mine.append(ours(tokens=length, count=1))
                other.append(theirs.prefill(tokens)[:2])
            told({"what": "prefill", "tokens": length, "ours_ms": statistics.median(run["firstMs"] for run in mine),
                  "theirs_ms": statistics.median(ms for ms, _ in other),
                  "same_first_token": mine[0]["first"] == other[0][1]})
        tokens = prompt(1024)
        theirs.decode(tokens, 8), ours(tokens=1024, count=8)
        mine, other = [], []
        for _ in range(options.runs):
            mine.append(ours(tokens=1024, count=options.tokens + 1)["tokenMs"])
            other.append(theirs.decode(tokens, options.tokens))
        told({"what": "decode", "context": 1024, "ours_ms": statistics.median(mine), "theirs_ms": statistics.median(other)})
    ours.process.stdin.close()


main()
