"""Golden vectors of RWKV-7 by the author's own inference package (PyPI rwkv, torch on the CPU in float32).

Usage: python rwkv7.py OUT     writes one folder a case under OUT.

Every case is also held against rwkv7_float64.py. `fla` is `prefixed` under the names of flash-linear-attention: the
author does not count its implementation as one of RWKV-7, so only its names are used.
"""

import os
import pathlib
import re
import shutil
import sys
import tempfile
import types

os.environ |= {"RWKV_V7_ON": "1", "RWKV_JIT_ON": "0", "RWKV_CUDA_ON": "0"}

import torch  # noqa: E402
from golden import check_and_save, prompt_tokens, relative_error, run, versions, write_json  # noqa: E402
from rwkv.model import RWKV  # noqa: E402
from rwkv7_float64 import forward as float64_forward  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

GREEDY_STEPS = 48
VOCAB = 256
EOS = 249
WIDTH = 64

CASES = {
    # The names of the author's files. (Heads are always 64 wide: his eps of the group norm is a number.)
    "author": dict(seed=51, prompt=131, prefix="", hidden=128, inner=160, layers=2, ranks=dict(w=16, a=16, v=8, g=24)),
    # The same under `rwkv7.`, one head, odd ranks.
    "prefixed": dict(seed=52, prompt=109, prefix="rwkv7.", hidden=64, inner=96, layers=3, ranks=dict(w=9, a=8, v=5, g=16)),
}  # fmt: skip

FLA_NAMES = [
    (r"^emb\.", "model.embeddings."),
    (r"^head\.", "lm_head."),
    (r"^ln_out\.", "model.norm."),
    (r"^blocks\.0\.ln0\.", "model.layers.0.pre_norm."),
    (r"^blocks\.(\d+)\.ln1\.", r"model.layers.\1.attn_norm."),
    (r"^blocks\.(\d+)\.ln2\.", r"model.layers.\1.ffn_norm."),
    (r"^blocks\.(\d+)\.att\.ln_x\.", r"model.layers.\1.attn.g_norm."),
    (r"^blocks\.(\d+)\.att\.receptance\.", r"model.layers.\1.attn.r_proj."),
    (r"^blocks\.(\d+)\.att\.(k|v|o)(ey|alue|utput)\.", r"model.layers.\1.attn.\2_proj."),
    (r"^blocks\.(\d+)\.att\.([wavg])1$", r"model.layers.\1.attn.\2_lora.lora.0.weight"),
    (r"^blocks\.(\d+)\.att\.([wavg])2$", r"model.layers.\1.attn.\2_lora.lora.2.weight"),
    (r"^blocks\.(\d+)\.att\.([wavg])0$", r"model.layers.\1.attn.\2_lora.lora.2.bias"),
    (r"^blocks\.(\d+)\.att\.", r"model.layers.\1.attn."),
    (r"^blocks\.(\d+)\.ffn\.", r"model.layers.\1.ffn."),
]


def weights_of(case: dict) -> dict[str, torch.Tensor]:
    """Random weights under the author's names and in his shapes."""
    generator = torch.Generator().manual_seed(case["seed"])
    hidden, inner = case["hidden"], case["inner"]

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(shape, generator=generator)

    def matrix(out: int, size: int) -> torch.Tensor:
        return normal(out, size, scale=size**-0.5)

    weights = {"emb.weight": normal(VOCAB, hidden, scale=0.3), "head.weight": matrix(VOCAB, hidden)}

    def norm(name: str):
        weights[f"{name}.weight"] = 1 + normal(hidden, scale=0.1)
        weights[f"{name}.bias"] = normal(hidden, scale=0.1)

    norm("blocks.0.ln0")
    norm("ln_out")
    for i in range(case["layers"]):
        block, att = f"blocks.{i}.", f"blocks.{i}.att."
        norm(f"{block}ln1")
        norm(f"{block}ln2")
        norm(f"{att}ln_x")
        for part in "rwkvag":
            weights[f"{att}x_{part}"] = torch.rand((1, 1, hidden), generator=generator)
        for gate, rank in case["ranks"].items():
            weights[f"{att}{gate}1"] = matrix(rank, hidden).T.contiguous()
            weights[f"{att}{gate}2"] = matrix(hidden, rank).T.contiguous()
            if gate != "g":  # decays from 0.55 to nearly 1
                weights[f"{att}{gate}0"] = normal(1, 1, hidden, scale=3.0 if gate == "w" else 1.0) - float(gate == "w")
        weights[f"{att}k_k"] = 0.7 + normal(1, 1, hidden, scale=0.1)
        weights[f"{att}k_a"] = 1 + normal(1, 1, hidden, scale=0.2)
        weights[f"{att}r_k"] = normal(hidden // WIDTH, WIDTH, scale=0.2)
        for part in ("receptance", "key", "value", "output"):
            weights[f"{att}{part}.weight"] = matrix(hidden, hidden)
        weights[f"{block}ffn.x_k"] = torch.rand((1, 1, hidden), generator=generator)
        weights[f"{block}ffn.key.weight"] = matrix(inner, hidden)
        weights[f"{block}ffn.value.weight"] = matrix(hidden, inner)
    return weights


def fla_layout(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    out = {}
    for name, tensor in weights.items():
        if re.search(r"^blocks\.0\.att\.v[012]$", name):
            continue
        pattern, target = next(pair for pair in FLA_NAMES if re.search(pair[0], name))
        if re.search(r"\.[wavg][12]$", name):
            tensor = tensor.T
        elif re.search(r"\.att\.([wav]0|k_[ka])$|ffn\.x_k$", name):
            tensor = tensor.flatten()
        out[re.sub(pattern, target, name)] = tensor.contiguous()
    return out


def config_of(case: dict) -> dict:
    return {
        "architectures": ["RWKV7ForCausalLM"],
        "model_type": "rwkv7",
        "hidden_size": case["hidden"],
        "intermediate_size": case["inner"],
        "num_hidden_layers": case["layers"],
        "head_dim": WIDTH,
        "num_heads": case["hidden"] // WIDTH,
        "decay_low_rank_dim": case["ranks"]["w"],
        "a_low_rank_dim": case["ranks"]["a"],
        "v_low_rank_dim": case["ranks"]["v"],
        "gate_low_rank_dim": case["ranks"]["g"],
        "hidden_act": "sqrelu",
        "norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "vocab_size": VOCAB,
        "bos_token_id": None,
        "eos_token_id": EOS,
    }


class Author:
    """Gives rwkv.model.RWKV the call of transformers' models; the cache is its state."""

    def __init__(self, weights: dict[str, torch.Tensor]):
        with tempfile.TemporaryDirectory() as folder:
            torch.save({k: v.clone() for k, v in weights.items()}, f"{folder}/model.pth")
            self.model = RWKV(model=f"{folder}/model", strategy="cpu fp32")

    def __call__(self, input_ids, use_cache, past_key_values=None):
        tokens = input_ids[0].tolist()
        logits, state = self.model.forward(tokens, past_key_values, full_output=True)
        return types.SimpleNamespace(logits=logits.reshape(1, len(tokens), -1), past_key_values=state)


def make(out: pathlib.Path, name: str, case: dict, layout):
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = weights_of(case)
    stored = layout(weights)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", config_of(case))

    model = Author(weights)
    prompt = prompt_tokens(case["prompt"], VOCAB, case["seed"] + 1000)
    result = run(model, prompt, GREEDY_STEPS)
    tokens = torch.cat([prompt, result["greedy_tokens"]])
    exact = torch.from_numpy(float64_forward({k: v.double().numpy() for k, v in weights.items()}, tokens.numpy()))
    error = relative_error(torch.cat([result["logits"], result["greedy_logits"]]), exact)
    assert error < 1e-5, f"the author's package and the float64 recurrence differ by {error}"
    meta = {
        "family": "rwkv7",
        "made_by": "the author's package, float32 on the CPU",
        "versions": versions("torch", "rwkv", "safetensors"),
        "seed": case["seed"],
        "weights": "float32",
        "parameters": sum(v.numel() for k, v in stored.items() if not re.search(r"blocks\.0\.att\.v[012]$", k)),
        "eos_token_id": EOS,
        "measured": {"float64_error": error},
    }
    check_and_save(folder, prompt, result, model, meta)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    out = pathlib.Path(sys.argv[1])
    for name, case in CASES.items():
        head = {"head.weight"}  # never under the prefix
        make(out, name, case, lambda w: {k if k in head else case["prefix"] + k: v for k, v in w.items()})
    make(out, "fla", CASES["prefixed"], fla_layout)
