"""RWKV-7 in numpy float64, token by token, written from the paper (arXiv:2503.14456, appendix with the architecture).

Shares no code with the author's package: it is what the package is checked against before its output becomes a golden.
"""

import numpy as np


def norm(x, w, name, eps=1e-5):
    return (x - x.mean()) / np.sqrt(x.var() + eps) * w[f"{name}.weight"] + w[f"{name}.bias"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def low_rank(x, w, name, between=lambda x: x):
    return between(x @ w[f"{name}1"]) @ w[f"{name}2"] + w.get(f"{name}0", 0)


def time_mixing(x, before, first, state, w, heads):
    """x [C] after the norm. state [H, V, K] is updated in place; `first` are the first layer's values, or None."""
    r, d, k, v, a, g = (x + w[f"x_{part}"] * (before - x) for part in "rwkvag")
    receptance, key = w["receptance.weight"] @ r, w["key.weight"] @ k
    value = w["value.weight"] @ v
    if first is None:
        first = value
    else:
        value = value + (first - value) * sigmoid(low_rank(v, w, "v"))
    decay = np.exp(-np.exp(-0.5) * sigmoid(low_rank(d, w, "w", np.tanh)))
    rate = sigmoid(low_rank(a, w, "a"))
    gate = low_rank(g, w, "g", sigmoid)
    unit = (key * w["k_k"]).reshape(heads, -1)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    key = key * (1 + (rate - 1) * w["k_a"])
    receptance, decay, key, value, rate = (y.reshape(heads, -1) for y in (receptance, decay, key, value, rate))
    out = np.empty_like(value)
    for h in range(heads):
        removed = np.outer(state[h] @ unit[h], unit[h] * rate[h])
        state[h] = state[h] * decay[h] - removed + np.outer(value[h], key[h])
        y = state[h] @ receptance[h]
        out[h] = (y - y.mean()) / np.sqrt(y.var() + 64e-5)
    bonus = (receptance * key * w["r_k"]).sum(1, keepdims=True) * value
    out = out.ravel() * w["ln_x.weight"] + w["ln_x.bias"] + bonus.ravel()
    return w["output.weight"] @ (out * gate), first


def forward(weights, tokens):
    """Logits float64 [T, vocab] of int tokens [T]; weights under the author's names."""
    weights = {name: x.reshape(-1) if x.shape[:2] == (1, 1) else x for name, x in weights.items()}
    layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    heads, width = weights["blocks.0.att.r_k"].shape
    blocks = [
        {part: {name.removeprefix(f"blocks.{i}.{part}."): x for name, x in weights.items() if f"blocks.{i}.{part}." in name}
         for part in ("att", "ffn")}
        for i in range(layers)
    ]  # fmt: skip
    states = np.zeros((layers, heads, width, width))
    before = np.zeros((layers, 2, heads * width))
    logits = []
    for token in tokens:
        x = norm(weights["emb.weight"][token], weights, "blocks.0.ln0")
        first = None
        for i, block in enumerate(blocks):
            h = norm(x, weights, f"blocks.{i}.ln1")
            dx, first = time_mixing(h, before[i, 0], first, states[i], block["att"], heads)
            before[i, 0] = h
            x = x + dx
            h = norm(x, weights, f"blocks.{i}.ln2")
            mixed = h + block["ffn"]["x_k"] * (before[i, 1] - h)
            before[i, 1] = h
            x = x + block["ffn"]["value.weight"] @ np.maximum(block["ffn"]["key.weight"] @ mixed, 0) ** 2
        logits.append(weights["head.weight"] @ norm(x, weights, "ln_out"))
    return np.array(logits)
