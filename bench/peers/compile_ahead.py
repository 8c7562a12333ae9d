"""Compiles the Triton kernels that prefill.py's table needs, into Triton's cache on disk, by several processes at once.

Autotuning compiles every configuration of a kernel one after another and times each. Here process i of n compiles every nth
configuration and times none, so that the measured run after it times all of them on an idle GPU and compiles few. These
processes choose nothing that could be kept.

    python3 bench/peers/compile_ahead.py --processes 16 --mechanisms GDN,KDA --heads 8,16,32,64 --batches 1,8
"""
import argparse
import itertools
import os
import subprocess
import sys
import time

TOKENS = 1024  # a multiple of 16 chunks, like the table's lengths: Triton compiles anew for numbers that are not


def run(mechanism_names, head_counts, batches, processes):
    """Starts `processes` processes and waits for them; their output is this one's."""
    command = [sys.executable, __file__, "--processes", str(processes), "--mechanisms", ",".join(mechanism_names),
               "--heads", ",".join(map(str, head_counts)), "--batches", ",".join(map(str, batches)), "--part"]
    parts = [subprocess.Popen(command + [str(i)]) for i in range(processes)]
    if any([part.wait() != 0 for part in parts]):
        print("some kernels could not be compiled ahead", flush=True)


def compile_only(part, processes):
    """Autotuned kernels of this process are compiled, in every processes-th of their configurations, and never run."""
    from triton.compiler.errors import CompileTimeAssertionFailure
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.errors import OutOfResources, PTXASError

    seen, turn = set(), itertools.count()

    def run(self, *args, **kwargs):
        self.nargs = dict(zip(self.arg_names, args))
        given = {**self.nargs, **kwargs}
        kinds = [str(value.dtype) for value in given.values() if hasattr(value, "dtype")]
        key = (self.base_fn.__name__, *(str(given.get(name)) for name in self.keys), *kinds)
        if key in seen:
            return
        seen.add(key)
        for config in self.prune_configs(kwargs):
            if next(turn) % processes != part:
                continue
            try:
                self.fn.run(*args, **{**kwargs, **config.all_kwargs(), "warmup": True})
            except (CompileTimeAssertionFailure, OutOfResources, PTXASError):  # autotuning leaves it out too
                pass

    Autotuner.run = run


def tune_quickly():
    """Autotuning times each configuration for a fifth of Triton's own time, behind a cold L2 as ever."""
    import triton.testing
    from triton.runtime.autotuner import Autotuner

    short = lambda call, quantiles: triton.testing.do_bench(call, warmup=5, rep=20, quantiles=quantiles)
    Autotuner.do_bench = property(lambda self: short)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=min(16, os.cpu_count()))
    parser.add_argument("--mechanisms", required=True)
    parser.add_argument("--heads", required=True)
    parser.add_argument("--batches", required=True)
    parser.add_argument("--part", type=int)
    options = parser.parse_args()
    names, heads, batches = (text.split(",") for text in (options.mechanisms, options.heads, options.batches))
    if options.part is None:
        return run(names, heads, batches, options.processes)

    import torch

    import mechanisms

    compile_only(options.part, options.processes)
    failed = False
    for mechanism in mechanisms.all():
        if mechanism.name not in names:
            continue
        start = time.time()
        try:
            with torch.no_grad():
                for count in map(int, heads):
                    inputs = mechanisms.inputs(mechanism, TOKENS, count)
                    for batch in map(int, batches):
                        whole = mechanisms.repeated(mechanism, inputs, batch, TOKENS)
                        for peer in mechanism.peers.values():
                            peer(whole)
                torch.cuda.synchronize()
        except Exception as error:  # the others' kernels are worth having
            failed = True
            print(f"part {options.part}: {mechanism.name}: {error!r}", flush=True)
        if options.part == 0:
            print(f"compiled ahead: {mechanism.name}, {time.time() - start:.1f} s", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
