"""Golden vectors of Granite 4.0 H (granitemoehybrid) by Hugging Face transformers on the CPU, plain torch paths only.

Usage: python granite-moe-hybrid.py OUT     writes one folder a case under OUT.
"""

import inspect
import pathlib
import shutil
import sys

# transformers takes the kernels of these packages where they import; the goldens are its own torch code.
sys.modules["mamba_ssm"] = None
sys.modules["causal_conv1d"] = None
sys.modules["kernels"] = None

import torch  # noqa: E402
from golden import check_and_save, decay_parameters, prompt_tokens, run, versions  # noqa: E402
from transformers import GraniteMoeHybridConfig, GraniteMoeHybridForCausalLM  # noqa: E402
from transformers.models.granitemoehybrid import modeling_granitemoehybrid  # noqa: E402

GREEDY_STEPS = 48
EOS = 249
SIZES = dict(
    hidden_size=64, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, vocab_size=256,
    mamba_n_heads=8, mamba_d_head=16, mamba_d_state=16, mamba_expand=2, intermediate_size=32,
    shared_intermediate_size=48, embedding_multiplier=12, residual_multiplier=0.246, attention_multiplier=0.0625,
    logits_scaling=3, eos_token_id=EOS, bos_token_id=None,
    layer_types=["linear_attention", "full_attention", "linear_attention", "linear_attention"],
)  # fmt: skip

CASES = {
    # As the small ones: no experts, no positions, tied head.
    "dense": dict(seed=71, prompt=131, more=dict(num_local_experts=0, num_experts_per_tok=0, tie_word_embeddings=True)),
    # As Tiny: experts beside the shared block; two groups of B and C; RoPE.
    "experts": dict(
        seed=72, prompt=101,
        more=dict(
            num_local_experts=6, num_experts_per_tok=2, mamba_n_groups=2, position_embedding_type="rope",
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, residual_multiplier=0.22, logits_scaling=6,
        ),
    ),
}  # fmt: skip


def random_weight(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    normal = torch.randn(shape, generator=generator)
    if "norm" in name:  # logits are divided by logits_scaling
        return (6 if name == "model.norm.weight" else 1) * (1 + 0.1 * normal)
    if "embed_tokens" in name:
        return 0.04 * normal  # times embedding_multiplier
    if "conv1d" in name or name.endswith(("bias", ".D")):
        return 0.5 * normal
    if "router" in name:  # a router that has clear choices
        return 3 * normal / shape[-1] ** 0.5
    return 2 * normal / shape[-1] ** 0.5


def randomize(model: torch.nn.Module, seed: int):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if not name.endswith(("A_log", "dt_bias")):
                parameter.copy_(random_weight(name, parameter.shape, generator))
        for module in model.modules():
            if isinstance(module, modeling_granitemoehybrid.GraniteMoeHybridMambaLayer):
                a_log, dt_bias = decay_parameters(module.num_heads, generator)
                module.A_log.copy_(a_log)
                module.dt_bias.copy_(dt_bias)


def make(out: pathlib.Path, name: str, case: dict):
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = GraniteMoeHybridForCausalLM(GraniteMoeHybridConfig(**{**SIZES, **case["more"]}))
    randomize(model, case["seed"])
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    load = dict(dtype=torch.float32, attn_implementation="eager", experts_implementation="eager")
    model = GraniteMoeHybridForCausalLM.from_pretrained(folder, **load).eval()
    for function in ("mamba2_chunk_scan", "mamba2_selective_state_update", "causal_conv1d_fn", "causal_conv1d_update"):
        closure = inspect.getclosurevars(getattr(modeling_granitemoehybrid, function)).nonlocals
        assert closure["is_new_implementation"] is False, function

    prompt = prompt_tokens(case["prompt"], 256, case["seed"] + 1000)
    result = run(model, prompt, GREEDY_STEPS)
    meta = {
        "family": "granitemoehybrid",
        "made_by": "transformers, float32 on the CPU, eager attention and experts, its own torch scan",
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
