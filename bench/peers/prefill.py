"""Prefill of each linear-attention mechanism: linattn beside flash-linear-attention's Triton kernels, on one GPU.

Both sides get the same inputs. Each cell is timed by CUDA events, from recorded graphs, with a cold L2, in turns: ours,
theirs, ours, theirs. Their time is the better of graph and eager. Final states of the cell are compared. At last, at a
short length, both are held against the recurrence in float64 (at last, because their autotuning keeps for all lengths what
it finds at the first). Usage, in the repository, with dist/ and prebuilds/ built:

    python3 bench/peers/prefill.py --out result.json [--mechanisms GDN,KDA] [--heads 8,16,32,64] [--pairs 21]
        [--processes 16]

Triton first compiles each configuration of each kernel, by --processes processes (compile_ahead.py); then the GPU is left to
the measured run, whose autotuning times them.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time

import torch

import compile_ahead
import mechanisms

BLOCK = 1024


class Ours:
    def __init__(self):
        script = os.path.join(os.path.dirname(__file__), "ours.mjs")
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


def write(folder, name, tensor):
    file = os.path.join(folder, name)
    kind = "bfloat16" if tensor.dtype == torch.bfloat16 else "float32"
    plain = tensor.contiguous().cpu()
    (plain.view(torch.int16) if kind == "bfloat16" else plain).numpy().tofile(file)
    return {"file": file, "dtype": kind, "shape": list(tensor.shape)}


def relative(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def open_ours(ours, folder, mechanism, inputs, batch, tokens, heads):
    files = {name: write(folder, name, tensor) for name, tensor in inputs.items()}
    ours("open", batch=batch, tokens=tokens, inputs=files, rule=mechanism.rule, decay=mechanism.decay,
         denominator=mechanism.denominator, scale=mechanism.scale, heads=heads, K=mechanism.K, V=mechanism.V)


def results_of_ours(ours, folder, mechanism, batch, tokens, heads):
    out, state = os.path.join(folder, "out"), os.path.join(folder, "state")
    ours("results", out=out, state=state)
    read = lambda file, dtype: torch.from_file(file, size=os.path.getsize(file) // dtype.itemsize, dtype=dtype).clone()
    return (read(out, torch.bfloat16).view(batch, tokens, -1, mechanism.V).cuda(),
            read(state, torch.float32).view(batch, heads, mechanism.V, mechanism.K).transpose(-1, -2).cuda())


def check(ours, folder, mechanism, heads):
    """Relative errors of both sides against the recurrence in float64, of outputs and of final states."""
    batch, tokens = 1, 600
    inputs = mechanisms.inputs(mechanism, tokens, heads)
    whole = mechanisms.repeated(mechanism, inputs, batch, tokens)
    wanted, wanted_state = mechanisms.recurrence(mechanism, whole)
    open_ours(ours, folder, mechanism, inputs, batch, tokens, heads)
    out, state = results_of_ours(ours, folder, mechanism, batch, tokens, heads)
    their_out, their_state = mechanism.fla(whole)
    return {"ours": relative(out, wanted), "theirs": relative(their_out, wanted),
            "ours_state": relative(state, wanted_state), "theirs_state": relative(their_state, wanted_state)}


def measure(ours, folder, mechanism, batch, tokens, heads, pairs, flush):
    inputs = mechanisms.inputs(mechanism, BLOCK, heads)
    open_ours(ours, folder, mechanism, inputs, batch, tokens, heads)
    whole = mechanisms.repeated(mechanism, inputs, batch, tokens)
    theirs = lambda: mechanism.fla(whole)
    for _ in range(3):
        theirs()
    torch.cuda.synchronize()
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = theirs()
    except RuntimeError:
        graph = None

    def timed(run):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    mine, replayed, eager = [], [], []
    for pair in range(pairs + 2):
        a = ours("time")["ms"]
        b = timed(graph.replay) if graph else float("inf")
        c = timed(theirs)
        if pair >= 2:
            mine.append(a), replayed.append(b), eager.append(c)
    best = replayed if statistics.median(replayed) <= statistics.median(eager) else eager
    _, state = results_of_ours(ours, folder, mechanism, batch, tokens, heads) if batch * tokens * heads <= 2**19 else (None, None)
    difference = relative(state, theirs()[1]) if state is not None else None
    ratios = sorted(b / a for a, b in zip(mine, best))
    row = {"mechanism": mechanism.name, "batch": batch, "tokens": tokens, "heads": heads,
           "ours_ms": statistics.median(mine), "theirs_ms": statistics.median(best),
           "theirs_graph_ms": statistics.median(replayed), "theirs_eager_ms": statistics.median(eager),
           "ratio": statistics.median(ratios), "low": ratios[len(ratios) // 4], "high": ratios[3 * len(ratios) // 4],
           "states_differ": difference}
    row["floor_ms"] = mechanisms.floor_bytes(mechanism, batch, tokens, heads)
    return row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--mechanisms", default="")
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--processes", type=int, default=min(16, os.cpu_count()), help="that compile ahead; 0: none")
    parser.add_argument("--heads", default="8,16,32,64")
    options = parser.parse_args()
    chosen = [m for m in mechanisms.all() if not options.mechanisms or m.name in options.mechanisms.split(",")]
    cells = [(1, 8192), (1, 32768), (8, 4096)]
    head_counts = [int(count) for count in options.heads.split(",")]
    begun = time.time()
    since = lambda: f"{time.time() - begun:6.1f} s"
    if options.processes > 0:
        batches = sorted({batch for batch, _ in cells})
        compile_ahead.run([m.name for m in chosen], head_counts, batches, options.processes)
        print(f"{since()}  compiled ahead by {options.processes} processes", flush=True)
    flush = torch.empty(2**26, dtype=torch.float32, device="cuda")
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
    copy_gbps = 2 * 4 * 2**28 / statistics.median(copies[2:]) / 1e6
    del source, target
    report = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "copy_gbps": copy_gbps, "checks": {}, "rows": []}
    ours = Ours()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, torch.no_grad():
        for mechanism in chosen:
            try:
                for batch, tokens in cells:
                    for heads in head_counts:
                        row = measure(ours, folder, mechanism, batch, tokens, heads, options.pairs, flush)
                        row["floor_ms"] /= copy_gbps * 1e6
                        report["rows"].append(row)
                        print(f"{since()}  {mechanism.name:24} {heads:3} heads {batch} x {tokens:6}  ours {row['ours_ms']:.3f} ms "
                              f"({row['ours_ms'] / row['floor_ms']:.1f} x floor)  fla {row['theirs_ms']:.3f} ms  "
                              f"ratio {row['ratio']:.2f}  states differ {row['states_differ']}", flush=True)
                report["checks"][mechanism.name] = check(ours, folder, mechanism, head_counts[0])
                print(f"{since()}  {mechanism.name}", report["checks"][mechanism.name], flush=True)
            except Exception as error:  # one mechanism that fails must not lose the others
                report["checks"].setdefault(mechanism.name, {})["error"] = repr(error)
                print(mechanism.name, "failed:", repr(error), flush=True)
            ours("close")
            torch.cuda.empty_cache()
            with open(options.out, "w") as file:
                json.dump(report, file, indent=1)


main()
