"""Golden vectors of MiniMax-Text-01 (minimax) by Hugging Face transformers on the CPU.

Usage: python minimax.py OUT     writes one folder a case under OUT.
"""

import pathlib
import shutil
import sys

import torch
from golden import check_and_save, prompt_tokens, run, versions
from transformers import MiniMaxConfig, MiniMaxForCausalLM

GREEDY_STEPS = 48
EOS = 249
SIZES = dict(
    hidden_size=64, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, vocab_size=256,
    intermediate_size=32, num_experts_per_tok=2, eos_token_id=EOS, bos_token_id=None, block_size=32,
    # Softmax first: transformers' cache counts its tokens in layer 0.
    layer_types=["full_attention", "linear_attention", "linear_attention", "linear_attention"],
)  # fmt: skip

CASES = {
    "plain": dict(seed=83, prompt=131, more=dict(num_local_experts=4)),
    # The factors of the published model; heads wider than hidden_size / heads.
    "scaled": dict(
        seed=84, prompt=101,
        more=dict(
            num_local_experts=6, head_dim=24, full_attn_alpha_factor=3.5565588200778455,
            linear_attn_alpha_factor=3.5565588200778455, mlp_alpha_factor=3.5565588200778455,
        ),
    ),
}  # fmt: skip


def random_weight(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    normal = torch.randn(shape, generator=generator)
    if "norm" in name:
        return 1 + 0.1 * normal
    if "embed_tokens" in name:
        return 0.3 * normal
    if name.endswith("gate.weight") and "self_attn" not in name:  # a router that has clear choices
        return 3 * normal / shape[-1] ** 0.5
    return normal / shape[-1] ** 0.5


def randomize(model: torch.nn.Module, seed: int):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(random_weight(name, parameter.shape, generator))


def make(out: pathlib.Path, name: str, case: dict):
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = MiniMaxForCausalLM(MiniMaxConfig(**{**SIZES, **case["more"]}))
    randomize(model, case["seed"])
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    load = dict(dtype=torch.float32, attn_implementation="eager", experts_implementation="eager")
    model = MiniMaxForCausalLM.from_pretrained(folder, **load).eval()
    prompt = prompt_tokens(case["prompt"], 256, case["seed"] + 1000)
    result = run(model, prompt, GREEDY_STEPS)
    meta = {
        "family": "minimax",
        "made_by": "transformers, float32 on the CPU, eager attention and experts, blocks of 32 tokens",
        "versions": versions("torch", "transformers", "safetensors"),
        "seed": case["seed"],
        "weights": "float32",
        "parameters": sum(p.numel() for p in model.parameters()),
        "eos_token_id": EOS,
    }
    check_and_save(folder, prompt, result, model, meta)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    out = pathlib.Path(sys.argv[1])
    for name in sys.argv[2:] or CASES:
        make(out, name, CASES[name])
