"""Writes golden logits for three long prompts: fla's model in float32 with its naive recurrence (no TF32).

python3 parity.py --model ../default --data work/data --out ../../test/golden/default-model
Also checks that GatedDeltaNetForCausalLM.from_pretrained loads the folder and ties the head.
Tensors of parity.safetensors, for prompt i: ids.i [T] int32; argmax.i [T] int32; top.i [T, 2] float32 (the two largest
logits); lse.i [T] float32 (log of the sum of exponentials); positions.i [P] int32; logits.i [P, 8192] float32.
"""
import argparse
import json
from pathlib import Path

import model as builder
import torch
import torch.nn.functional as F
from fla.layers import gated_deltanet
from fla.models import GatedDeltaNetForCausalLM
from fla.ops.gated_delta_rule.naive import naive_recurrent_gated_delta_rule
from safetensors.torch import save_file
from tokenizers import Tokenizer

PROMPTS = (("literature", 2048), ("speeches", 2500), ("manuals", 3000))
ROWS = 26


def naive(q, k, v, g, beta, A_log, dt_bias, initial_state=None, **_):
    """fla's chunk_gated_delta_rule as the layer calls it, on its naive recurrence."""
    assert initial_state is None
    def unit(t):
        return t * torch.rsqrt(t.float().pow(2).sum(-1, keepdim=True) + 1e-6)
    decay = -A_log.float().exp() * F.softplus(g.float() + dt_bias.float())
    return naive_recurrent_gated_delta_rule(unit(q), unit(k), v, beta.float().sigmoid(), decay)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--model", type=Path, required=True)
    args.add_argument("--data", type=Path, required=True)
    args.add_argument("--out", type=Path, required=True)
    args = args.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = GatedDeltaNetForCausalLM.from_pretrained(str(args.model), dtype=torch.float32).to(device).eval()
    assert model.lm_head.weight.data_ptr() == model.model.embeddings.weight.data_ptr(), "the head is not tied"
    own = builder.load_weights(builder.new_model(device, args.model / "config.json"), args.model / "model.safetensors")
    for (n, a), b in zip(model.named_parameters(), own.parameters()):
        assert torch.equal(a, b), n
    tok = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    texts = {}
    for line in open(args.data / "heldout.jsonl"):
        d = json.loads(line)
        if len(d["text"]) > 20_000:
            texts.setdefault(d["group"], d["text"])
    chunked = gated_deltanet.chunk_gated_delta_rule
    out, report = {}, []
    for i, (group, length) in enumerate(PROMPTS):
        ids = torch.tensor([tok.encode(texts[group][:length * 8]).ids[:length]], device=device)
        logits = {}
        for name, op in (("naive", naive), ("chunk", chunked)):
            if name == "chunk" and device == "cpu":
                continue
            gated_deltanet.chunk_gated_delta_rule = op
            with torch.no_grad():
                logits[name] = model(ids, use_cache=False).logits[0].float()
        gold = logits["naive"]
        top = gold.topk(2, -1).values
        positions = torch.linspace(0, length - 1, ROWS).round().int()
        out |= {f"ids.{i}": ids[0].int().cpu(), f"argmax.{i}": gold.argmax(-1).int().cpu(), f"top.{i}": top.cpu(),
                f"lse.{i}": gold.logsumexp(-1).cpu(), f"positions.{i}": positions,
                f"logits.{i}": gold[positions.long().to(device)].cpu()}
        row = {"group": group, "tokens": length, "mean_nats": round(F.cross_entropy(gold[:-1], ids[0, 1:]).item(), 4)}
        if "chunk" in logits:
            row["chunk_float32_relative_error"] = ((logits["chunk"] - gold).norm() / gold.norm()).item()
        report.append(row)
        print(json.dumps(row), flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(out, str(args.out / "parity.safetensors"))
    (args.out / "parity.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
