"""Golden vectors of RetNet, GLA, DeltaNet, KDA, HGRN2 and GSA by flash-linear-attention, its own Triton kernels run by Triton's CPU
interpreter.

Usage: python fla-mixers.py OUT [FAMILY/CASE ...]     writes one folder a case under OUT.

fla_on_cpu.py says what of fla is replaced. Chosen: attn_mode fused_recurrent when the model is run (config.json keeps
fla's default `chunk`): both compute the same function, and the interpreter cannot run the chunk kernel.
"""

import pathlib
import shutil
import sys

import fla_on_cpu  # noqa: F401, I001
import torch
from fla.models.delta_net import DeltaNetConfig, DeltaNetForCausalLM
from fla.models.gla import GLAConfig, GLAForCausalLM
from fla.models.gsa import GSAConfig, GSAForCausalLM
from fla.models.hgrn2 import HGRN2Config, HGRN2ForCausalLM
from fla.models.kda import KDAConfig, KDAForCausalLM
from fla.models.retnet import RetNetConfig, RetNetForCausalLM
from fla_float64 import forward as float64_forward
from golden import check_and_save, decay_parameters, prompt_tokens, relative_error, run, versions

GREEDY_STEPS = 48
VOCAB = 256
EOS = 249
CLASSES = {
    "retnet": (RetNetConfig, RetNetForCausalLM),
    "gla": (GLAConfig, GLAForCausalLM),
    "delta_net": (DeltaNetConfig, DeltaNetForCausalLM),
    "kda": (KDAConfig, KDAForCausalLM),
    "hgrn2": (HGRN2Config, HGRN2ForCausalLM),
    "gsa": (GSAConfig, GSAForCausalLM),
}

CASES = {
    # Widths from fla's defaults: V = 2 K, intermediate_size from hidden_ratio.
    "retnet/gated": dict(seed=41, prompt=131, config=dict(hidden_size=64, num_hidden_layers=2, num_heads=4)),
    "retnet/ungated": dict(
        seed=42, prompt=101,
        config=dict(
            hidden_size=64, num_hidden_layers=2, num_heads=2, expand_v=1.0, intermediate_size=96, use_output_gate=False,
            fuse_norm=False, tie_word_embeddings=True,
        ),
    ),
    # K = V / 2, as fla's defaults.
    "gla/plain": dict(
        seed=43, prompt=131, config=dict(hidden_size=64, num_hidden_layers=2, num_heads=4, intermediate_size=96)
    ),
    # Two query heads a key head, short convolutions.
    "gla/grouped": dict(
        seed=44, prompt=101,
        config=dict(
            hidden_size=64, num_hidden_layers=2, num_heads=4, num_kv_heads=2, expand_k=1.0, intermediate_size=96,
            use_short_conv=True, norm_eps=1e-5,
        ),
    ),
    "delta_net/plain": dict(
        seed=45, prompt=131, config=dict(hidden_size=64, num_hidden_layers=2, num_heads=4, intermediate_size=96)
    ),
    # Gated, negative eigenvalues, no convolution, a softmax layer in between.
    "delta_net/gated": dict(
        seed=46, prompt=101,
        config=dict(
            hidden_size=64, num_hidden_layers=3, num_heads=2, expand_k=0.5, intermediate_size=96, use_gate=True,
            use_short_conv=False, allow_neg_eigval=True, attn={"layers": [1], "num_heads": 4, "window_size": 16},
        ),
    ),
    # The softplus gate.
    "kda/plain": dict(
        seed=47, prompt=101,
        config=dict(hidden_size=64, num_hidden_layers=2, num_heads=4, head_dim=16, intermediate_size=96),
    ),
    # The bounded gate, two value heads a key head, negative eigenvalues, no convolution.
    "kda/bounded": dict(
        seed=48, prompt=89,
        config=dict(
            hidden_size=64, num_hidden_layers=2, num_heads=2, num_v_heads=4, head_dim=16, intermediate_size=96,
            safe_gate=True, lower_bound=-5.0, allow_neg_eigval=True, use_short_conv=False,
        ),
    ),
    # Lower bounds, from the second layer on.
    "hgrn2/bounded": dict(
        seed=49, prompt=97,
        config=dict(hidden_size=64, num_hidden_layers=3, expand_ratio=16, intermediate_size=96),
    ),
    # Short convolutions, no bounds.
    "hgrn2/free": dict(
        seed=50, prompt=83,
        config=dict(
            hidden_size=64, num_hidden_layers=2, num_heads=2, expand_ratio=32, intermediate_size=96,
            use_short_conv=True, use_lower_bound=False,
        ),
    ),
    "gsa/plain": dict(
        seed=51, prompt=131,
        config=dict(hidden_size=64, num_hidden_layers=2, num_heads=4, num_slots=16, intermediate_size=96),
    ),
    # Two query heads a key head, short convolutions, relu, more slots than the width of a head.
    "gsa/grouped": dict(
        seed=52, prompt=89,
        config=dict(
            hidden_size=64, num_hidden_layers=2, num_heads=4, num_kv_heads=2, num_slots=32, intermediate_size=96,
            use_short_conv=True, feature_map="relu", gate_logit_normalizer=4,
        ),
    ),
}  # fmt: skip


def random_weight(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    normal = torch.randn(shape, generator=generator)
    if "norm" in name:
        return 1 + 0.1 * normal
    if "embeddings" in name:
        return 0.3 * normal
    if "gk_proj.1" in name:  # log decays from about -1 to nearly 0
        return 2 * normal if name.endswith("bias") else normal
    if "conv1d" in name or name.endswith("bias"):
        return 0.5 * normal
    return normal / shape[1] ** 0.5


def randomize(model: torch.nn.Module, seed: int):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if name.endswith("A_log"):
                parameter.copy_(decay_parameters(len(parameter), generator)[0] / 2)
            elif name.endswith("dt_bias"):
                parameter.copy_(decay_parameters(len(parameter), generator)[1])
            else:
                parameter.copy_(random_weight(name, parameter.shape, generator))


def make(out: pathlib.Path, name: str, case: dict):
    family = name.split("/")[0]
    config_class, model_class = CLASSES[family]
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = model_class(config_class(**case["config"], vocab_size=VOCAB, eos_token_id=EOS, bos_token_id=None))
    randomize(model, case["seed"])
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)

    chosen = {} if family == "gsa" else {"attn_mode": "fused_recurrent"}
    model = model_class.from_pretrained(folder, **chosen, dtype=torch.float32).eval()
    for layer in model.model.layers if family == "gsa" else []:  # its config has no attn_mode
        layer.attn.mode = "fused_recurrent"
    with torch.no_grad():
        prompt = prompt_tokens(case["prompt"], VOCAB, case["seed"] + 1000)
        result = run(model, prompt, GREEDY_STEPS)
    tokens = torch.cat([prompt, result["greedy_tokens"]])
    exact = torch.from_numpy(float64_forward(folder, tokens.numpy()))
    error = relative_error(torch.cat([result["logits"], result["greedy_logits"]]), exact)
    assert error < 1e-5, f"fla and the float64 recurrence differ by {error}"
    meta = {
        "family": family,
        "made_by": "fla's Triton kernels under Triton's CPU interpreter, float32, fused_recurrent",
        "versions": versions("torch", "flash-linear-attention", "fla-core", "triton", "transformers", "safetensors"),
        "seed": case["seed"],
        "weights": "float32",
        "parameters": sum(p.numel() for p in model.parameters()),
        "eos_token_id": EOS,
        "measured": {"float64_error": error},
    }
    check_and_save(folder, prompt, result, model, meta)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    out = pathlib.Path(sys.argv[1])
    for name in sys.argv[2:] or CASES:
        make(out, name, CASES[name])
