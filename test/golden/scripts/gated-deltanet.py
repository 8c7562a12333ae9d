"""Golden vectors of gated_deltanet by flash-linear-attention, its own Triton kernels run by Triton's CPU interpreter.

Usage: python gated-deltanet.py OUT     writes one folder a case under OUT.

fla_on_cpu.py says what of fla is replaced. Chosen: attn_mode fused_recurrent when the model is run (config.json keeps
fla's default `chunk`): both compute the same function, and the interpreter cannot run the chunk kernel. Everything else
is fla as installed.
"""

import pathlib
import shutil
import sys

import fla_on_cpu  # noqa: F401, I001
import torch
from fla.layers.attn import Attention
from fla.layers.gated_deltanet import GatedDeltaNet
from fla.models.gated_deltanet import GatedDeltaNetConfig, GatedDeltaNetForCausalLM
from golden import check_and_save, decay_parameters, prompt_tokens, relative_error, run, versions
from gated_deltanet_float64 import forward as float64_forward

GREEDY_STEPS = 64
VOCAB = 256
EOS = 249

CASES = {
    # Gated delta layers alone; widths from fla's defaults: V = 2 K, intermediate_size from hidden_ratio.
    "linear": dict(
        seed=21, prompt=197,
        config=dict(hidden_size=64, num_hidden_layers=2, num_heads=3, head_dim=16, expand_v=2.0),
    ),
    # Every other layer is softmax over the last 32 keys, query heads 4 to 2.
    "hybrid": dict(
        seed=22, prompt=229,
        config=dict(
            hidden_size=64, num_hidden_layers=4, num_heads=2, head_dim=32, expand_v=1.0, intermediate_size=96,
            attn={"layers": [1, 3], "num_heads": 4, "num_kv_heads": 2, "window_size": 32},
        ),
    ),
    # num_v_heads = 2 num_heads, beta in (0, 2), tied head.
    "grouped": dict(
        seed=23, prompt=163,
        config=dict(
            hidden_size=64, num_hidden_layers=3, num_heads=2, num_v_heads=4, head_dim=16, expand_v=1.0,
            intermediate_size=96, allow_neg_eigval=True, tie_word_embeddings=True,
        ),
    ),
    # No output gate, V = 1.5 K, one softmax layer with no window, with biases and another rope_theta.
    "ungated": dict(
        seed=24, prompt=130,
        config=dict(
            hidden_size=64, num_hidden_layers=3, num_heads=2, head_dim=16, expand_v=1.5, intermediate_size=96,
            use_gate=False, norm_eps=1e-5,
            attn={"layers": [1], "num_heads": 2, "num_kv_heads": 1, "qkv_bias": True, "rope_theta": 50000.0},
        ),
    ),
}  # fmt: skip


def random_weight(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    normal = torch.randn(shape, generator=generator)
    if "norm" in name:
        return 1 + 0.1 * normal
    if "embeddings" in name:
        return 0.3 * normal
    if "conv1d" in name or name.endswith("bias"):
        return 0.5 * normal
    return normal / shape[1] ** 0.5


def randomize(model: torch.nn.Module, seed: int):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if not name.endswith(("A_log", "dt_bias")):
                parameter.copy_(random_weight(name, parameter.shape, generator))
        for module in model.modules():
            if isinstance(module, GatedDeltaNet):
                a_log, dt_bias = decay_parameters(module.num_v_heads, generator)
                module.A_log.copy_(a_log)
                module.dt_bias.copy_(dt_bias)


def make(out: pathlib.Path, name: str, case: dict):
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = GatedDeltaNetConfig(**case["config"], vocab_size=VOCAB, eos_token_id=EOS, bos_token_id=None)
    model = GatedDeltaNetForCausalLM(config)
    randomize(model, case["seed"])
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)

    model = GatedDeltaNetForCausalLM.from_pretrained(folder, attn_mode="fused_recurrent", dtype=torch.float32).eval()
    mixers = [layer.attn for layer in model.model.layers]
    assert all(isinstance(m, Attention) or m.mode == "fused_recurrent" for m in mixers)
    prompt = prompt_tokens(case["prompt"], VOCAB, case["seed"] + 1000)
    result = run(model, prompt, GREEDY_STEPS)
    tokens = torch.cat([prompt, result["greedy_tokens"]])
    exact = torch.from_numpy(float64_forward(folder, tokens.numpy()))
    error = relative_error(torch.cat([result["logits"], result["greedy_logits"]]), exact)
    assert error < 1e-5, f"fla and the float64 recurrence differ by {error}"
    meta = {
        "family": "gated_deltanet",
        "made_by": "fla's Triton kernels under Triton's CPU interpreter, float32, fused_recurrent, plain softmax attention",
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
