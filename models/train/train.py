"""Trains the model on one GPU in bfloat16 for a given number of seconds; the learning rate follows the clock.

python3 train.py --data work/data --out work/out --seconds 850
Muon for the matrices, AdamW for embeddings, convolutions, gates and norms; warm-up, constant, then linear decay.
"""
import argparse
import json
import math
import multiprocessing as mp
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from batches import LENGTHS, TOKENS_PER_STEP, Corpus, Steps
from model import new_model, parameters, save_bfloat16

LR = 3e-3
WARMUP_STEPS = 60
DECAY_FROM = 0.55
WEIGHT_DECAY = 0.1
CHUNK = 65_536


def rate(step: int, progress: float) -> float:
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * (1.0 if progress < DECAY_FROM else max(0.0, (1 - progress) / (1 - DECAY_FROM)))


def token_losses(hidden, weight, targets):
    """Cross-entropy of every token, in chunks so that the float32 logits stay small."""
    def part(h, w, t):
        return F.cross_entropy((h @ w.t()).float(), t, reduction="none")
    return torch.cat([checkpoint(part, h, weight, t, use_reentrant=False)
                      for h, t in zip(hidden.split(CHUNK), targets.split(CHUNK))])


class Masters:
    """Float32 copies of the bfloat16 weights, which the optimizers update."""

    def __init__(self, model):
        self.names = [n for n, _ in model.named_parameters()]
        self.low = [p for _, p in model.named_parameters()]
        self.full = [p.detach().float().clone().requires_grad_() for p in self.low]

    def take_gradients(self):
        for f, p in zip(self.full, self.low):
            f.grad = p.grad.float()
            p.grad = None

    @torch.no_grad()
    def write_back(self):
        torch._foreach_copy_(self.low, self.full)


def optimizers(masters):
    matrices, decayed, plain = [], [], []
    for name, p in zip(masters.names, masters.full):
        if p.ndim == 2 and "embeddings" not in name and min(p.shape) >= 64:
            matrices.append(p)
        elif p.ndim >= 2:
            decayed.append(p)
        else:
            plain.append(p)
    return [
        torch.optim.Muon(matrices, lr=LR, weight_decay=WEIGHT_DECAY, momentum=0.95, nesterov=True,
                         adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
                          lr=LR, betas=(0.9, 0.98), eps=1e-10, fused=True),
    ]


def heldout_loss(model, corpus, tokens=131_072, length=4096):
    """Nats per token on the first tokens of every held-out group."""
    out = {}
    model.eval()
    for name, ids in corpus.groups.items():
        n = min(len(ids) - 1, tokens) // length * length
        x = torch.from_numpy(ids[:n + 1].astype("int64")).cuda()
        with torch.no_grad():
            h = model.model(x[:n].view(-1, length), use_cache=False)[0].reshape(n, -1)
            out[name] = round(token_losses(h, model.model.embeddings.weight, x[1:]).mean().item(), 4)
    model.train()
    return out


ROW_LENGTHS = sorted({n for _, mix in LENGTHS for n in mix})


def fill_kernel_cache():
    """Compiles the kernels of all row lengths side by side, one process each, on a model of two layers."""
    jobs = [mp.get_context("spawn").Process(target=compile_one, args=(n,)) for n in ROW_LENGTHS]
    for j in jobs:
        j.start()
    for j in jobs:
        j.join()


def compile_one(length):
    model = new_model("cuda", layers=2).train().bfloat16()
    compile_kernels(model, [length])


def compile_kernels(model, lengths):
    """Runs every row length, so that Triton's compilation stays out of the clock and of the schedule."""
    for length in lengths:
        tic = time.time()
        for _ in range(2):
            x = torch.randint(0, 8192, (max(1, TOKENS_PER_STEP // length), length), device="cuda")
            h = model.model(x)[0]
            token_losses(h.reshape(-1, h.shape[-1]), model.model.embeddings.weight, x.view(-1)).mean().backward()
            model.zero_grad(set_to_none=True)
            torch.cuda.synchronize()
            tic, spent = time.time(), time.time() - tic
        print("row length", length, "step seconds", round(spent, 3), "memory GB",
              round(torch.cuda.max_memory_allocated() / 1e9, 1), flush=True)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--data", type=Path, required=True)
    args.add_argument("--out", type=Path, required=True)
    args.add_argument("--seconds", type=float, required=True)
    args.add_argument("--lr", type=float, default=LR)
    args.add_argument("--workers", type=int, default=12)
    args.add_argument("--seed", type=int, default=1)
    args = args.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tic = time.time()
    fill_kernel_cache()
    print("kernels compiled in", round(time.time() - tic), "s", flush=True)
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    model = new_model("cuda").train()
    masters = Masters(model)
    model.bfloat16()
    masters.low = list(model.parameters())
    opts = optimizers(masters)
    progress = mp.Value("d", 0.0)
    loader = iter(torch.utils.data.DataLoader(Steps(args.data, progress, args.seed), batch_size=None,
                                              num_workers=args.workers, prefetch_factor=2, pin_memory=True))
    held = Corpus(args.data, "heldout")
    print("parameters", parameters(model), flush=True)
    log = open(args.out / "train-log.jsonl", "w")
    tic, step, tokens, next_eval = time.time(), 0, 0, 0.15
    sums, start = {}, None
    while True:
        length, ids, weights = next(loader)
        if start is None:
            compile_kernels(model, ROW_LENGTHS)
            start = tic = time.time()
        progress.value = (time.time() - start) / args.seconds
        if progress.value >= 1:
            break
        ids, weights = ids.cuda(non_blocking=True), weights.cuda(non_blocking=True).view(-1)
        factor = rate(step, progress.value)
        for o in opts:
            for g in o.param_groups:
                g["lr"] = args.lr * factor
        hidden = model.model(ids[:, :-1].contiguous())[0]
        losses = token_losses(hidden.reshape(-1, hidden.shape[-1]), model.model.embeddings.weight,
                              ids[:, 1:].reshape(-1))
        loss = (losses * weights).sum() / weights.numel()
        loss.backward()
        masters.take_gradients()
        norm = torch.nn.utils.clip_grad_norm_(masters.full, 1.0)
        for o in opts:
            o.step()
        masters.write_back()
        with torch.no_grad():
            text, answer = weights == 1, weights > 1
            s = torch.stack([(losses * text).sum(), text.sum(), (losses * answer).sum(), answer.sum(), norm])
        sums[length] = sums.get(length, 0) + s
        step, tokens = step + 1, tokens + weights.numel()
        if step % 25 == 0:
            row = {"step": step, "seconds": round(time.time() - start, 1), "tokens": tokens, "lr": round(args.lr * factor, 6),
                   "tokens_per_second": round(25 * weights.numel() / (time.time() - tic))}
            for n, v in sorted(sums.items()):
                v = v.tolist()
                row[str(n)] = [round(v[0] / max(v[1], 1), 3), round(v[2] / max(v[3], 1), 3)]
            sums, tic = {}, time.time()
            if progress.value > next_eval:
                row["heldout"] = heldout_loss(model, held)
                next_eval += 0.2
                save_bfloat16(model, args.out / "checkpoint.safetensors")
            print(json.dumps(row), flush=True)
            log.write(json.dumps(row) + "\n")
            if not math.isfinite(sum(x[0] for k, x in row.items() if k.isdigit())):
                raise RuntimeError("loss is not finite")
    save_bfloat16(model, args.out / "model.safetensors")
    row = {"done": step, "tokens": tokens, "heldout": heldout_loss(model, held)}
    print(json.dumps(row), flush=True)
    log.write(json.dumps(row) + "\n")
    log.close()


if __name__ == "__main__":
    main()
