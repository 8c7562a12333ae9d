"""Golden vectors of xLSTM (xlstm) by Hugging Face transformers on the CPU, with its own kernels in torch.

Usage: python x-lstm.py OUT     writes one folder a case under OUT.
"""

import pathlib
import shutil
import sys

import torch
from golden import check_and_save, prompt_tokens, versions
from transformers import xLSTMConfig, xLSTMForCausalLM
from transformers.models.xlstm import modeling_xlstm

GREEDY_STEPS = 48
EOS = 249
# transformers' cache rounds the widths of all heads up to 64; the layer does not.
SIZES = dict(
    hidden_size=64, num_hidden_layers=3, vocab_size=256, qk_dim_factor=1.0, ffn_round_up_to_multiple_of=16,
    eos_token_id=EOS, bos_token_id=None, pad_token_id=None,
)  # fmt: skip

CASES = {
    # Two chunks of 64 tokens, then the step kernel; V = 2 K.
    "single": dict(seed=91, prompt=131, more=dict(num_heads=4, v_dim_factor=2.0)),
    # Fused weights, caps and eps that are not the defaults.
    "fused": dict(
        seed=93, prompt=101,
        more=dict(
            num_heads=2, weight_mode="fused", ffn_proj_factor=1.3, gate_soft_cap=5.0, output_logit_soft_cap=4.0,
            eps=1e-3, norm_eps=1e-5, chunk_size=32,
        ),
    ),
}  # fmt: skip


def random_weight(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    normal = torch.randn(shape, generator=generator)
    if "norm" in name:
        return 1 + 0.1 * normal
    if "gate_preact.bias" in name:  # input gates from e^-10 to e^10, forget gates from 0.5 to 0.999
        heads = shape[0] // 2 if "ifgate" in name else shape[0]
        inputs, forgets = torch.linspace(-4, 4, heads), torch.linspace(1, 6, heads)
        return {"ifgate": torch.cat([inputs, forgets]), "igate": inputs, "fgate": forgets}[name.split(".")[-2][:-7]]
    if "gate_preact.weight" in name and "ogate" not in name:
        return 3 * normal / shape[-1] ** 0.5
    if "embeddings" in name:
        return normal
    return normal / shape[-1] ** 0.5


def randomize(model: torch.nn.Module, seed: int):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(random_weight(name, parameter.shape, generator))


@torch.no_grad()
def run(model, prompt: torch.Tensor, steps: int) -> dict[str, torch.Tensor]:
    """As golden.run, for a cache that is passed as cache_params."""
    out = model(input_ids=prompt.long()[None], use_cache=True)
    logits = out.logits[0].float()
    fed, rows = [], [logits[-1]]
    for _ in range(steps):
        fed.append(int(rows[-1].argmax()))
        out = model(input_ids=torch.tensor([[fed[-1]]]), cache_params=out.cache_params, use_cache=True)
        rows.append(out.logits[0, -1].float())
    return {
        "logits": logits,
        "greedy_tokens": torch.tensor(fed, dtype=torch.int32),
        "greedy_logits": torch.stack(rows[1:]),
    }


def make(out: pathlib.Path, name: str, case: dict):
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = xLSTMForCausalLM(xLSTMConfig(**{**SIZES, **case["more"]}))
    randomize(model, case["seed"])
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    model = xLSTMForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = prompt_tokens(case["prompt"], 256, case["seed"] + 1000)
    result = run(model, prompt, GREEDY_STEPS)
    meta = {
        "family": "xlstm",
        "made_by": "transformers, float32 on the CPU, its own kernels (no package xlstm)",
        "versions": versions("torch", "transformers", "safetensors"),
        "seed": case["seed"],
        "weights": "float32",
        "parameters": sum(p.numel() for p in model.parameters()),
        "eos_token_id": EOS,
    }
    check_and_save(folder, prompt, result, model, meta)


if __name__ == "__main__":
    assert not modeling_xlstm.external_xlstm
    # Fails with fused weights, and every weight is set here.
    modeling_xlstm.xLSTMPreTrainedModel._init_weights = lambda self, module: None
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    out = pathlib.Path(sys.argv[1])
    for name in sys.argv[2:] or CASES:
        make(out, name, CASES[name])
