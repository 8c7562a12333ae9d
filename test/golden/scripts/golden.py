"""Writes one golden case: golden.safetensors (arrays) and golden.json (what they are and how they were made)."""

import importlib.metadata
import json
import math
import platform

import torch
from safetensors.torch import save_file

RELATIVE_TOLERANCE = 1e-4
ARGMAX_GAP_FACTOR = 10
QUALIFYING_SHARE = 0.95


def prompt_tokens(count: int, vocab_size: int, seed: int) -> torch.Tensor:
    """int32 [count], uniform over the vocabulary except its last 8 ids (special tokens live there)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocab_size - 8, (count,), generator=generator, dtype=torch.int32)


def inverse_softplus(x: torch.Tensor) -> torch.Tensor:
    return x + torch.log(-torch.expm1(-x))


def decay_parameters(heads: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A_log and dt_bias, both [heads]: A uniform in [1, 16], dt log-uniform in [0.001, 1].

    With a ~ N(0, 1) the log decay -A softplus(a + dt_bias) then runs from about -0.001 to about -30.
    """
    a_log = torch.log(torch.rand(heads, generator=generator) * 15 + 1)
    dt = torch.exp(torch.rand(heads, generator=generator) * (math.log(1) - math.log(0.001)) + math.log(0.001))
    return a_log, inverse_softplus(dt)


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    """norm(a - b) / norm(b) over everything."""
    return float((a.double() - b.double()).norm() / b.double().norm())


def top2_gap(logits: torch.Tensor) -> torch.Tensor:
    """float32 [T]: largest minus second largest logit of each row of [T, V]."""
    best = logits.topk(2, dim=-1).values
    return (best[:, 0] - best[:, 1]).float()


def qualifying_share(logits: torch.Tensor) -> float:
    """Share of rows whose top-2 gap exceeds ten times the tolerance times the row's largest absolute logit."""
    bar = ARGMAX_GAP_FACTOR * RELATIVE_TOLERANCE * logits.abs().amax(dim=-1)
    return float((top2_gap(logits) > bar).float().mean())


@torch.no_grad()
def prefill_logits(model, tokens: torch.Tensor) -> torch.Tensor:
    """float32 [T, V]: one uncached pass over int32 [T]."""
    return model(input_ids=tokens.long()[None], use_cache=False).logits[0].float()


@torch.no_grad()
def run(model, prompt: torch.Tensor, steps: int, forced: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """One prefill of the whole prompt, then `steps` cached decode steps of one token each.

    prompt: int32 [T]. forced: int32 [steps], the tokens to feed; absent: the model's own argmax.
    Row i of greedy_logits are the logits after greedy_tokens[i] was fed.
    """
    out = model(input_ids=prompt.long()[None], use_cache=True)
    logits = out.logits[0].float()
    token = int(logits[-1].argmax())
    fed, rows = [], []
    for i in range(steps):
        token = token if forced is None else int(forced[i])
        fed.append(token)
        out = model(input_ids=torch.tensor([[token]]), past_key_values=out.past_key_values, use_cache=True)
        rows.append(out.logits[0, -1].float())
        token = int(rows[-1].argmax())
    return {
        "logits": logits,
        "greedy_tokens": torch.tensor(fed, dtype=torch.int32),
        "greedy_logits": torch.stack(rows),
    }


def rerun(model, prompt: torch.Tensor, steps: int) -> dict[str, torch.Tensor]:
    """As `run`, for an implementation that has no cache: each step is one uncached pass over all tokens so far."""
    logits = prefill_logits(model, prompt)
    tokens, rows = prompt, [logits[-1]]
    for _ in range(steps):
        tokens = torch.cat([tokens, rows[-1].argmax()[None].int()])
        rows.append(prefill_logits(model, tokens)[-1])
    return {"logits": logits, "greedy_tokens": tokens[len(prompt) :], "greedy_logits": torch.stack(rows[1:])}


def check_and_save(folder, prompt, result, model, meta, extra=None):
    """Checks that the case can serve as a golden, then writes it. Returns the metadata written."""
    everything = torch.cat([result["logits"], result["greedy_logits"]])
    share = qualifying_share(everything)
    # The same tokens through one prefill: how far the outside implementation is from itself.
    whole = prefill_logits(model, torch.cat([prompt, result["greedy_tokens"]]))
    self_error = relative_error(result["greedy_logits"], whole[len(prompt) :])
    distinct = len(set(result["greedy_tokens"].tolist()))
    print(
        f"{folder.parent.name}/{folder.name}: rms {everything.square().mean().sqrt():.3f} "
        f"qualifying {share:.4f} decode against prefill {self_error:.2e} distinct greedy tokens {distinct}"
    )
    assert torch.isfinite(everything).all()
    assert share >= QUALIFYING_SHARE, "too many near ties"
    assert self_error < RELATIVE_TOLERANCE / 10, "the reference is not precise enough for the tolerance"
    assert distinct >= 8, "the greedy continuation is degenerate"
    assert meta["eos_token_id"] not in result["greedy_tokens"].tolist(), "the greedy continuation must not stop early"

    arrays = {
        "tokens": prompt,
        "logits": result["logits"],
        "top2_gap": top2_gap(result["logits"]),
        "greedy_tokens": result["greedy_tokens"],
        "greedy_logits": result["greedy_logits"],
        "greedy_top2_gap": top2_gap(result["greedy_logits"]),
        **(extra or {}),
    }
    save_file({name: tensor.contiguous() for name, tensor in arrays.items()}, folder / "golden.safetensors")
    meta = {
        **meta,
        "tolerance": {
            "relative_l2": RELATIVE_TOLERANCE,
            "argmax_gap_factor": ARGMAX_GAP_FACTOR,
            "qualifying_share": QUALIFYING_SHARE,
        },
        "measured": {
            "qualifying_share": round(share, 4),
            "decode_against_prefill": float(f"{self_error:.3g}"),
            **{name: float(f"{value:.3g}") for name, value in meta.get("measured", {}).items()},
        },
        "arrays": {
            name: f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
            for name, tensor in arrays.items()
        },
    }
    write_json(folder / "golden.json", meta)
    return meta


def versions(*names: str) -> dict[str, str]:
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
