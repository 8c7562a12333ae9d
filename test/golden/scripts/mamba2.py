"""Golden vectors of Mamba-2 by Hugging Face transformers on the CPU, plain torch paths only.

Usage: python mamba2.py OUT     writes one folder a case under OUT.
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
from golden import check_and_save, decay_parameters, prompt_tokens, rerun, run, versions  # noqa: E402
from transformers import Mamba2Config, Mamba2ForCausalLM  # noqa: E402
from transformers.models.mamba2 import modeling_mamba2  # noqa: E402

GREEDY_STEPS = 64
EOS = 249

CASES = {
    # One group of B and C for all heads, tied head, as state-spaces' own models.
    "tied": dict(
        seed=31, prompt=211,
        config=dict(
            hidden_size=64, num_heads=8, head_dim=16, state_size=32, n_groups=1, num_hidden_layers=3,
            tie_word_embeddings=True,
        ),
    ),
    # Two groups, biases everywhere, another width of the convolution, P > N; dt is held within limits.
    "grouped": dict(
        seed=38, prompt=173,
        config=dict(
            hidden_size=48, num_heads=4, head_dim=24, state_size=16, n_groups=2, num_hidden_layers=3, conv_kernel=3,
            use_bias=True, time_step_limit=(0.05, 0.4), layer_norm_epsilon=1e-6, chunk_size=32,
        ),
    ),
}  # fmt: skip


def random_weight(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    normal = torch.randn(shape, generator=generator)
    if "norm" in name:
        return 1 + 0.1 * normal
    if "embeddings" in name:
        return 0.3 * normal
    if "conv1d" in name or name.endswith(("bias", ".D")):
        return 0.5 * normal
    return normal / shape[1] ** 0.5


def randomize(model: torch.nn.Module, seed: int):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if not name.endswith(("A_log", "dt_bias")):
                parameter.copy_(random_weight(name, parameter.shape, generator))
        for module in model.modules():
            if isinstance(module, modeling_mamba2.Mamba2Mixer):
                a_log, dt_bias = decay_parameters(module.num_heads, generator)
                module.A_log.copy_(a_log)
                module.dt_bias.copy_(dt_bias)


class Cached:
    """Gives Mamba2ForCausalLM the argument that other models have for the cache."""

    def __init__(self, model: torch.nn.Module):
        self.model = model

    def __call__(self, input_ids, use_cache, past_key_values=None):
        out = self.model(input_ids=input_ids, cache_params=past_key_values, use_cache=use_cache)
        out.past_key_values = out.cache_params
        return out


def assert_plain_torch():
    """No kernel of mamba_ssm, of causal-conv1d or from the hub: each wrapper calls the function of the modeling file."""
    for name in ("mamba2_chunk_scan", "mamba2_selective_state_update", "causal_conv1d_fn", "causal_conv1d_update"):
        function = getattr(modeling_mamba2, name)
        assert inspect.getclosurevars(function).nonlocals["is_new_implementation"] is False, name


def make(out: pathlib.Path, name: str, case: dict):
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = Mamba2ForCausalLM(Mamba2Config(**case["config"], vocab_size=256, eos_token_id=EOS, bos_token_id=None))
    randomize(model, case["seed"])
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    model = Mamba2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert_plain_torch()

    prompt = prompt_tokens(case["prompt"], 256, case["seed"] + 1000)
    cached = Cached(model)
    # The decode step of transformers forgets time_step_limit: with limits every token is a prefill of its own.
    limited = "time_step_limit" in case["config"]
    result = rerun(cached, prompt, GREEDY_STEPS) if limited else run(cached, prompt, GREEDY_STEPS)
    meta = {
        "family": "mamba2",
        "made_by": "transformers, float32 on the CPU, its own torch scan" + (", one prefill a token" if limited else ""),
        "versions": versions("torch", "transformers", "safetensors"),
        "seed": case["seed"],
        "weights": "float32",
        "parameters": sum(p.numel() for p in model.parameters()),
        "eos_token_id": EOS,
    }
    check_and_save(folder, prompt, result, cached, meta)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    out = pathlib.Path(sys.argv[1])
    for name in sys.argv[2:] or CASES:
        make(out, name, CASES[name])
