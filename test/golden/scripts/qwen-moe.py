"""Golden vectors of Qwen3-Next and Qwen3.5 with experts by Hugging Face transformers on the CPU, plain torch paths only.

Usage: python qwen-moe.py OUT     writes OUT/qwen3_next/... and OUT/qwen3_5_moe/...
"""

import inspect
import pathlib
import shutil
import sys

# transformers takes the kernels of these packages where they import; the goldens are its own torch code.
sys.modules["fla"] = None
sys.modules["causal_conv1d"] = None
sys.modules["kernels"] = None

import torch  # noqa: E402
from golden import check_and_save, decay_parameters, prompt_tokens, run, versions  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import Qwen3_5MoeForCausalLM, Qwen3_5MoeTextConfig, Qwen3NextConfig, Qwen3NextForCausalLM  # noqa: E402
from transformers.models.qwen3_5_moe import modeling_qwen3_5_moe  # noqa: E402
from transformers.models.qwen3_next import modeling_qwen3_next  # noqa: E402

GREEDY_STEPS = 48
EOS = 249
SIZES = dict(
    hidden_size=64, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1, head_dim=32, vocab_size=256,
    linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16,
    num_experts=8, num_experts_per_tok=3, moe_intermediate_size=32, shared_expert_intermediate_size=40,
    eos_token_id=EOS,
)  # fmt: skip

CASES = {
    "qwen3_next/experts": dict(
        seed=61, prompt=113, config=Qwen3NextConfig, model=Qwen3NextForCausalLM, module=modeling_qwen3_next,
        more=dict(intermediate_size=96, rope_parameters={"rope_type": "default", "rope_theta": 1e7}),
    ),
    "qwen3_next/unnormalised": dict(
        seed=68, prompt=89, config=Qwen3NextConfig, model=Qwen3NextForCausalLM, module=modeling_qwen3_next,
        more=dict(
            intermediate_size=96, norm_topk_prob=False, num_experts_per_tok=1, tie_word_embeddings=True,
            linear_num_key_heads=4, rope_parameters={"rope_type": "default", "rope_theta": 1e7},
        ),
    ),
    "qwen3_5_moe/experts": dict(
        seed=65, prompt=113, config=Qwen3_5MoeTextConfig, model=Qwen3_5MoeForCausalLM, module=modeling_qwen3_5_moe,
        more=dict(
            rope_parameters={
                "rope_type": "default", "rope_theta": 1e7, "mrope_interleaved": True, "mrope_section": [2, 1, 1],
            },
        ),
    ),
}  # fmt: skip


def random_weight(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    normal = torch.randn(shape, generator=generator)
    if "norm" in name:  # zero-centred, but for the gated one
        return ("linear_attn.norm" in name) + 0.1 * normal
    if "embed_tokens" in name:
        return 0.3 * normal
    if "conv1d" in name:
        return 0.5 * normal
    if name.endswith("mlp.gate.weight"):  # a router that has clear choices
        return 3 * normal / shape[-1] ** 0.5
    return normal / shape[-1] ** 0.5


def randomize(model: torch.nn.Module, seed: int):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if not name.endswith(("A_log", "dt_bias")):
                parameter.copy_(random_weight(name, parameter.shape, generator))
        for module in model.modules():
            if type(module).__name__.endswith("GatedDeltaNet"):
                a_log, dt_bias = decay_parameters(module.num_v_heads, generator)
                module.A_log.copy_(a_log)
                module.dt_bias.copy_(dt_bias)


def stack_experts(file: pathlib.Path):
    """Experts as the released Qwen3.5 files have them, one tensor for all; transformers saves them apart."""
    tensors = load_file(file)
    for name in [name for name in tensors if ".experts.0.gate_proj." in name]:
        prefix = name.removesuffix("0.gate_proj.weight")
        parts = {
            part: torch.stack([tensors.pop(f"{prefix}{e}.{part}.weight") for e in range(SIZES["num_experts"])])
            for part in ("gate_proj", "up_proj", "down_proj")
        }
        tensors[f"{prefix}gate_up_proj"] = torch.cat([parts["gate_proj"], parts["up_proj"]], dim=1).contiguous()
        tensors[f"{prefix}down_proj"] = parts["down_proj"].contiguous()
    save_file(tensors, file, metadata={"format": "pt"})


def make(out: pathlib.Path, name: str, case: dict):
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = case["model"](case["config"](**{**SIZES, **case["more"]}))
    randomize(model, case["seed"])
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    load = dict(dtype=torch.float32, attn_implementation="eager", experts_implementation="eager")
    model = case["model"].from_pretrained(folder, **load).eval()
    if case["model"] is Qwen3_5MoeForCausalLM:
        stack_experts(folder / "model.safetensors")
    for function in ("torch_chunk_gated_delta_rule", "causal_conv1d_fn", "causal_conv1d_update"):
        closure = inspect.getclosurevars(getattr(case["module"], function)).nonlocals
        assert closure["is_new_implementation"] is False, function

    prompt = prompt_tokens(case["prompt"], 256, case["seed"] + 1000)
    result = run(model, prompt, GREEDY_STEPS)
    meta = {
        "family": name.split("/")[0],
        "made_by": "transformers, float32 on the CPU, eager attention and experts, its own torch gated delta rule",
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
