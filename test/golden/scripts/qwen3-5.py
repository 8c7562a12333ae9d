"""Golden vectors of Qwen3.5 (dense, text) by Hugging Face transformers on the CPU, plain torch paths only.

Usage: python qwen3-5.py OUT     writes one folder a case under OUT.
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
from golden import check_and_save, decay_parameters, prompt_tokens, relative_error, run, versions, write_json  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import Qwen3_5ForCausalLM, Qwen3_5ForConditionalGeneration, Qwen3_5Config, Qwen3_5TextConfig  # noqa: E402
from transformers.models.qwen3_5 import modeling_qwen3_5  # noqa: E402

GREEDY_STEPS = 64
EOS = 249
ROTARY = {"rope_type": "default", "rope_theta": 10000000, "mrope_interleaved": True, "mrope_section": [11, 11, 10]}

# The text fields as people download them; each case overrides sizes.
TEXT = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_output_gate": True,
    "dtype": "float32",
    "full_attention_interval": 4,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "linear_conv_kernel_dim": 4,
    "mamba_ssm_dtype": "float32",
    "max_position_embeddings": 262144,
    "model_type": "qwen3_5_text",
    "mtp_num_hidden_layers": 1,
    "mtp_use_dedicated_embeddings": False,
    "rms_norm_eps": 1e-6,
    "use_cache": True,
}

CASES = {
    # Hv = Hk, tied head.
    "tied": dict(
        seed=11, vocab_size=256, prompt=261, tied=True, rotary=0.25, hidden_size=64, intermediate_size=160, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32,
        linear_num_key_heads=4, linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16,
    ),
    # Hv = 2 Hk, untied head, wider heads; also saved in bfloat16.
    "grouped": dict(
        seed=12, vocab_size=256, prompt=203, tied=False, rotary=0.25, hidden_size=96, intermediate_size=128, num_hidden_layers=4,
        num_attention_heads=2, num_key_value_heads=1, head_dim=64,
        linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=32, linear_value_head_dim=32,
    ),
    # Hv = 4 Hk, K > V, half the head rotates, attention heads 4 to 1, the released multimodal layout, tied head.
    "multimodal": dict(
        seed=13, vocab_size=256, prompt=297, tied=True, rotary=0.5, hidden_size=64, intermediate_size=96, num_hidden_layers=8,
        num_attention_heads=4, num_key_value_heads=1, head_dim=32,
        linear_num_key_heads=2, linear_num_value_heads=8, linear_key_head_dim=32, linear_value_head_dim=16,
    ),
    # Hv = 2 Hk, K < V, odd vocabulary, multimodal layout with a head of its own (as the 9B), two shards.
    "multimodal-untied": dict(
        seed=14, vocab_size=261, prompt=193, tied=False, rotary=0.25, hidden_size=64, intermediate_size=96, num_hidden_layers=4,
        num_attention_heads=2, num_key_value_heads=2, head_dim=32,
        linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=40,
    ),
}  # fmt: skip


def text_config(case: dict) -> dict:
    sizes = {k: v for k, v in case.items() if k not in ("seed", "prompt", "tied", "rotary")}
    layers = ["full_attention" if (i + 1) % 4 == 0 else "linear_attention" for i in range(case["num_hidden_layers"])]
    fields = {
        **TEXT, **sizes, "layer_types": layers, "eos_token_id": EOS, "bos_token_id": None, "pad_token_id": None,
        "partial_rotary_factor": case["rotary"], "tie_word_embeddings": case["tied"],
        "rope_parameters": {**ROTARY, "partial_rotary_factor": case["rotary"]},
    }  # fmt: skip
    return dict(sorted(fields.items()))


def multimodal_config(case: dict) -> dict:
    """The fields and nesting of a released config.json, with a tiny vision tower."""
    return {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "image_token_id": 248056,
        "model_type": "qwen3_5",
        "text_config": text_config(case),
        "tie_word_embeddings": case["tied"],
        "transformers_version": "4.57.0.dev0",
        "video_token_id": 248057,
        "vision_config": {
            "deepstack_visual_indexes": [],
            "depth": 1,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": 16,
            "in_channels": 3,
            "initializer_range": 0.02,
            "intermediate_size": 32,
            "model_type": "qwen3_5",
            "num_heads": 2,
            "num_position_embeddings": 16,
            "out_hidden_size": case["hidden_size"],
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        "vision_end_token_id": 248054,
        "vision_start_token_id": 248053,
    }


def random_weight(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    normal = torch.randn(shape, generator=generator)
    if name.endswith("linear_attn.norm.weight"):
        return 1 + 0.1 * normal
    if name.endswith("norm.weight"):  # zero-centred: the model multiplies by 1 + w
        return 0.1 * normal
    if "embed_tokens" in name:
        return 0.3 * normal
    if "conv1d" in name:
        return 0.5 * normal
    fan_in = shape[1] if len(shape) > 1 else shape[0]
    return normal / fan_in**0.5


def randomize(model: torch.nn.Module, seed: int):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if not name.endswith(("A_log", "dt_bias")):
                parameter.copy_(random_weight(name, parameter.shape, generator))
        for module in model.modules():
            if isinstance(module, modeling_qwen3_5.Qwen3_5GatedDeltaNet):
                a_log, dt_bias = decay_parameters(module.num_v_heads, generator)
                module.A_log.copy_(a_log)
                module.dt_bias.copy_(dt_bias)


def save_sharded(folder: pathlib.Path, tensors: dict, shards: int):
    """Writes `shards` files and model.safetensors.index.json, tensors dealt out in name order."""
    names = sorted(tensors)
    weight_map, total = {}, 0
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = names[i * len(names) // shards : (i + 1) * len(names) // shards]
        save_file({n: tensors[n].contiguous() for n in part}, folder / file, metadata={"format": "pt"})
        weight_map |= {n: file for n in part}
        total += sum(tensors[n].numel() * tensors[n].element_size() for n in part)
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def make_multimodal(folder: pathlib.Path, case: dict):
    """Saves as released checkpoints are: prefix model.language_model., model.visual.* and mtp.* beside it, shards."""
    config = multimodal_config(case)
    write_json(folder / "config.json", config)
    model = Qwen3_5ForConditionalGeneration(Qwen3_5Config.from_pretrained(folder)).eval()
    randomize(model, case["seed"])
    tensors = dict(model.state_dict())
    if case["tied"]:
        tensors.pop("lm_head.weight", None)
    width = case["hidden_size"]
    tensors["mtp.fc.weight"] = torch.full((width, 2 * width), 0.5)
    tensors["mtp.norm.weight"] = torch.full((width,), 0.5)
    assert any(name.startswith("model.visual.") for name in tensors)
    save_sharded(folder, tensors, 3 if case["tied"] else 2)
    return Qwen3_5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def make_text(folder: pathlib.Path, case: dict, dtype: torch.dtype):
    """Saves as Qwen3_5ForCausalLM.save_pretrained does: prefix model., one file."""
    model = Qwen3_5ForCausalLM(Qwen3_5TextConfig(**text_config(case))).eval()
    randomize(model, case["seed"])
    model.to(dtype).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return Qwen3_5ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def assert_plain_torch(model: torch.nn.Module):
    """No kernel of fla, of causal-conv1d or from the hub: each wrapper calls the function of the modeling file."""
    for name in (
        "torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule", "causal_conv1d_fn", "causal_conv1d_update",
    ):  # fmt: skip
        function = getattr(modeling_qwen3_5, name)
        assert inspect.getclosurevars(function).nonlocals["is_new_implementation"] is False, name
    assert model.config._attn_implementation == "eager"


def make(out: pathlib.Path, name: str, case: dict, dtype: torch.dtype = torch.float32):
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    multimodal = name.startswith("multimodal")
    model = make_multimodal(folder, case) if multimodal else make_text(folder, case, dtype)
    assert_plain_torch(model)

    prompt = prompt_tokens(case["prompt"], case["vocab_size"], case["seed"] + 1000)
    result = run(model, prompt, GREEDY_STEPS)
    meta = {
        "family": "qwen3_5",
        "made_by": "transformers, float32 on the CPU, eager attention, its own torch gated delta rule",
        "versions": versions("torch", "transformers", "safetensors"),
        "seed": case["seed"],
        "weights": str(dtype).removeprefix("torch."),
        "parameters": sum(p.numel() for n, p in model.named_parameters() if "visual" not in n),
        "eos_token_id": EOS,
    }
    extra = {}
    if dtype == torch.bfloat16:
        low = Qwen3_5ForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
        other = run(low, prompt, GREEDY_STEPS, forced=result["greedy_tokens"])
        extra = {"logits_bfloat16": other["logits"], "greedy_logits_bfloat16": other["greedy_logits"]}
        meta["measured"] = {
            "bfloat16_error": relative_error(other["logits"], result["logits"]),
            "bfloat16_greedy_error": relative_error(other["greedy_logits"], result["greedy_logits"]),
        }
        print("  transformers' own bfloat16 error", meta["measured"])
    check_and_save(folder, prompt, result, model, meta, extra)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    out = pathlib.Path(sys.argv[1])
    for name, case in CASES.items():
        make(out, name, case)
    make(out, "grouped-bfloat16", CASES["grouped"], torch.bfloat16)
