"""Prefill of each linear-attention mechanism: linattn beside flash-linear-attention's Triton kernels (and mamba_ssm's for
Mamba-2), on one GPU.

Both sides get the same inputs. First, at 1 x 1,024 tokens, outputs and final states of both are held against the recurrence
in float64. Each cell of the table is then timed by CUDA events, from recorded graphs, with a cold L2, in turns: ours, theirs,
ours, theirs. Where there are two of theirs, the faster counts. Final states and the last outputs of each cell are compared.
Gated DeltaNet is also timed alone at the shapes of FlashInfer's row in the baselines of this project. Usage, in the
repository, with dist/ and prebuilds/ built and the packages of requirements.txt in PYTHONPATH:

    python3 bench/peers/prefill.py --out result.json [--mechanisms GDN,KDA] [--heads 8,16,32,64] [--pairs 21]
        [--shapes 1x8192,1x32768,8x4096] [--processes 16]

Triton first compiles each configuration of each kernel, by --processes processes (compile_ahead.py); then the GPU is left to
the measured run, whose autotuning times them. The record is written after each mechanism and number of heads, in the order
given, so that a run that is cut keeps what it has.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import tempfile
import time

import torch

import compile_ahead
import mechanisms

BLOCK = 1024  # tokens of inputs, repeated along each prompt; also the length of the check
COMPARED = 256  # last outputs of a cell
EAGER_RUNS = 3
# ms of FlashInfer's kernel for Hopper, K = V = 128, an H200 on 2026-11-23: {heads: {(batch, tokens): ms}}
FLASHINFER = {16: {(1, 4096): 0.204, (1, 16384): 0.799, (1, 65536): 3.178, (8, 4096): 0.207},
              32: {(1, 4096): 0.199, (1, 16384): 0.779, (1, 65536): 3.095, (8, 4096): 0.405}}


class Ours:
    def __init__(self):
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ours.mjs")
        self.process = subprocess.Popen(["node", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, command, **request):
        self.process.stdin.write(json.dumps({"command": command, **request}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("linattn's process ended")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


class Cells:
    """Cells of one mechanism and one number of heads."""

    def __init__(self, ours, folder, flush, mechanism, heads):
        self.ours, self.folder, self.flush, self.mechanism, self.heads = ours, folder, flush, mechanism, heads
        self.inputs = mechanisms.inputs(mechanism, BLOCK, heads)
        self.files = {name: self.write(name, self.inputs[name]) for name in mechanisms.OURS if name in self.inputs}

    def write(self, name, tensor):
        file = os.path.join(self.folder, name)
        kind = "bfloat16" if tensor.dtype == torch.bfloat16 else "float32"
        plain = tensor.contiguous().cpu()
        (plain.view(torch.int16) if kind == "bfloat16" else plain).numpy().tofile(file)
        return {"file": file, "dtype": kind, "shape": list(tensor.shape)}

    def whole(self, batch, tokens):
        return mechanisms.repeated(self.mechanism, self.inputs, batch, tokens)

    def open_ours(self, batch, tokens):
        m = self.mechanism
        self.ours("open", batch=batch, tokens=tokens, inputs=self.files, rule=m.rule, decay=m.decay,
                  denominator=m.denominator, scale=m.scale, heads=self.heads, K=m.K, V=m.V)

    def results_of_ours(self, batch, last):
        """The last outputs [last, H, V] of the last sequence, and final states [B, H, K, V]."""
        m = self.mechanism
        out, state = os.path.join(self.folder, "out"), os.path.join(self.folder, "state")
        self.ours("results", out=out, state=state, last=last)
        read = lambda file, dtype: torch.from_file(file, size=os.path.getsize(file) // dtype.itemsize, dtype=dtype).clone()
        return (read(out, torch.bfloat16).view(last, -1, m.V).cuda(),
                read(state, torch.float32).view(batch, self.heads, m.V, m.K).transpose(-1, -2).cuda())

    def check(self):
        """Relative errors of all sides against the recurrence in float64, of outputs and of final states."""
        m = self.mechanism
        whole = self.whole(1, BLOCK)
        wanted, wanted_state = mechanisms.recurrence(m, whole)
        self.open_ours(1, BLOCK)
        sides = {"ours": self.results_of_ours(1, BLOCK)}
        for name, peer in m.peers.items():
            out, state = peer(whole)
            sides[name] = (out[0], state)
        return {name: {"out": relative(out, wanted[0]), "state": relative(state, wanted_state)}
                for name, (out, state) in sides.items()}

    def timed(self, run):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.flush.zero_()
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def measure(self, batch, tokens, pairs):
        m = self.mechanism
        self.open_ours(batch, tokens)
        whole = self.whole(batch, tokens)
        runs, eager = {}, {}
        for name, peer in m.peers.items():
            call = lambda peer=peer: peer(whole)
            for _ in range(2):
                call()
            eager[name] = statistics.median(self.timed(call) for _ in range(EAGER_RUNS))
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                kept = call()
            runs[name] = (graph, kept)
        mine, theirs = [], {name: [] for name in runs}
        for pair in range(pairs + 2):
            a = self.ours("time")["ms"]
            b = {name: self.timed(graph.replay) for name, (graph, _) in runs.items()}
            if pair >= 2:
                mine.append(a)
                for name, ms in b.items():
                    theirs[name].append(ms)
        best = min(theirs, key=lambda name: statistics.median(theirs[name]))
        ratios = sorted(b / a for a, b in zip(mine, theirs[best]))
        out, state = self.results_of_ours(batch, COMPARED)
        their_out, their_state = runs[best][1]
        return {"mechanism": m.name, "batch": batch, "tokens": tokens, "heads": self.heads, "pairs": pairs,
                "ours_ms": statistics.median(mine), "theirs_ms": statistics.median(theirs[best]), "theirs": best,
                "others_ms": {name: statistics.median(ms) for name, ms in theirs.items() if name != best},
                "theirs_eager_ms": eager[best], "ratio": statistics.median(ratios), "low": ratios[len(ratios) // 4],
                "high": ratios[3 * len(ratios) // 4], "outputs_differ": relative(out, their_out[-1, -COMPARED:]),
                "states_differ": relative(state, their_state)}

    def measure_ours(self, batch, tokens, runs):
        self.open_ours(batch, tokens)
        return statistics.median([self.ours("time")["ms"] for _ in range(runs + 2)][2:])


def relative(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def copy_rate():
    source = torch.empty(2**28, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    copies = []
    for _ in range(12):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        copies.append(begin.elapsed_time(end))
    return 2 * 4 * 2**28 / statistics.median(copies[2:]) / 1e6


def ratios_of(rows):
    """The geometric mean and the least ratio of each mechanism, and the largest multiple of the floor."""
    found = {}
    for name in dict.fromkeys(row["mechanism"] for row in rows):
        own = [row for row in rows if row["mechanism"] == name]
        found[name] = {"geometric_mean": math.exp(statistics.mean(math.log(row["ratio"]) for row in own)),
                       "least": min(row["ratio"] for row in own), "cells": len(own),
                       "most_of_floor": max(row["of_floor"] for row in own)}
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--mechanisms", default="")
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--processes", type=int, default=min(16, os.cpu_count()), help="that compile ahead; 0: none")
    parser.add_argument("--heads", default="8,16,32,64")
    parser.add_argument("--shapes", default="1x8192,1x32768,8x4096", help="batch x tokens")
    options = parser.parse_args()
    known = {m.name: m for m in mechanisms.all()}
    chosen = [known[name] for name in options.mechanisms.split(",")] if options.mechanisms else list(known.values())
    shapes = [tuple(map(int, shape.split("x"))) for shape in options.shapes.split(",")]
    head_counts = [int(count) for count in options.heads.split(",")]
    begun = time.time()
    since = lambda: f"{time.time() - begun:6.1f} s"
    if options.processes > 0:
        batches = sorted({1} | {batch for batch, _ in shapes})
        compile_ahead.run([m.name for m in chosen], head_counts, batches, options.processes)
        print(f"{since()}  compiled ahead by {options.processes} processes", flush=True)
    compile_ahead.tune_quickly()
    copy_gbps = copy_rate()
    flush = torch.empty(2**26, dtype=torch.float32, device="cuda")
    report = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "copy_gbps": copy_gbps,
              "ratios": {}, "checks": {}, "failed": {}, "rows": [], "flashinfer": []}
    ours = Ours()

    def save():
        report["ratios"] = ratios_of(report["rows"])
        with open(options.out, "w") as file:
            json.dump(report, file, indent=1)

    def measure_all(mechanism, heads, folder):
        cells = Cells(ours, folder, flush, mechanism, heads)
        whole = cells.whole(*shapes[0])
        for peer in mechanism.peers.values():  # autotuning keeps what it finds at the first length
            peer(whole)
        del whole
        report["checks"].setdefault(mechanism.name, {})[heads] = errors = cells.check()
        print(f"{since()}  {mechanism.name} {heads} heads, errors", errors, flush=True)
        for batch, tokens in shapes:
            row = cells.measure(batch, tokens, options.pairs)
            row["floor_ms"] = mechanisms.floor_bytes(mechanism, batch, tokens, heads) / (copy_gbps * 1e6)
            row["of_floor"] = row["ours_ms"] / row["floor_ms"]
            report["rows"].append(row)
            print(f"{since()}  {mechanism.name:24} {heads:3} heads {batch} x {tokens:6}  ours {row['ours_ms']:.3f} ms "
                  f"({row['of_floor']:.1f} x floor)  {row['theirs']} {row['theirs_ms']:.3f} ms {row['others_ms']}  "
                  f"ratio {row['ratio']:.2f}  differ {row['outputs_differ']:.1e} {row['states_differ']:.1e}", flush=True)
            torch.cuda.empty_cache()
        for (batch, tokens), ms in FLASHINFER.get(heads, {}).items() if mechanism.name == "GDN" else ():
            own = cells.measure_ours(batch, tokens, options.pairs)
            report["flashinfer"].append({"heads": heads, "batch": batch, "tokens": tokens, "ours_ms": own,
                                         "flashinfer_ms": ms, "ratio": ms / own})
            print(f"{since()}  GDN beside FlashInfer", report["flashinfer"][-1], flush=True)

    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, torch.no_grad():
        for mechanism in chosen:
            try:
                for heads in head_counts:
                    measure_all(mechanism, heads, folder)
                    save()
            except Exception as error:  # one mechanism that fails must not lose the others
                report["failed"][mechanism.name] = repr(error)
                print(mechanism.name, "failed:", repr(error), flush=True)
            ours("close")
            torch.cuda.empty_cache()
            save()
    for name, found in report["ratios"].items():
        print(name, found)


main()
