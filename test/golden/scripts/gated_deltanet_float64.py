"""gated_deltanet in numpy float64, token by token, written from the paper (Gated Delta Networks, arXiv:2412.06464).

Shares no code with fla: it is what the fla run is checked against before its output becomes a golden.
"""

import json
import pathlib

import numpy as np
from safetensors.numpy import load_file


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def short_convolution(x, weight):
    """x [T, C], weight [C, 1, W]: y_t = sum_w weight[w] x_(t - W + 1 + w), zeros before the text, then SiLU."""
    width = weight.shape[-1]
    padded = np.concatenate([np.zeros((width - 1, x.shape[1])), x])
    return silu(sum(padded[w : w + len(x)] * weight[:, 0, w] for w in range(width)))


def unit(x):
    return x / np.sqrt((x * x).sum(-1, keepdims=True) + 1e-6)


def delta_layer(x, w, config):
    """x [T, C] after the norm. S is [V, K] a head: S = e^g S; S += beta (v - S k) k'; o = S q / sqrt(K)."""
    length, heads, key_width = len(x), config["num_heads"], config["head_dim"]
    value_heads = config["num_v_heads"] or heads
    value_width = int(key_width * config["expand_v"])
    q = unit(short_convolution(x @ w["q_proj.weight"].T, w["q_conv1d.weight"]).reshape(length, heads, key_width))
    k = unit(short_convolution(x @ w["k_proj.weight"].T, w["k_conv1d.weight"]).reshape(length, heads, key_width))
    v = short_convolution(x @ w["v_proj.weight"].T, w["v_conv1d.weight"]).reshape(length, value_heads, value_width)
    beta = sigmoid(x @ w["b_proj.weight"].T) * (2 if config["allow_neg_eigval"] else 1)
    decay = np.exp(-np.exp(w["A_log"]) * np.logaddexp(0, x @ w["a_proj.weight"].T + w["dt_bias"]))
    out = np.empty((length, value_heads, value_width))
    for head in range(value_heads):
        shared = head // (value_heads // heads)
        state = np.zeros((value_width, key_width))
        for t in range(length):
            state = decay[t, head] * state
            state += beta[t, head] * np.outer(v[t, head] - state @ k[t, shared], k[t, shared])
            out[t, head] = state @ q[t, shared] * key_width**-0.5
    out = rms_norm(out, w["o_norm.weight"], config["norm_eps"])
    if config["use_gate"]:
        out *= silu((x @ w["g_proj.weight"].T).reshape(out.shape))
    return out.reshape(length, -1) @ w["o_proj.weight"].T


def rotate(x, theta):
    """x [T, H, D], pairs (i, i + D / 2), angle position * theta^(-2i / D)."""
    half = x.shape[-1] // 2
    angle = np.arange(len(x))[:, None] * theta ** (-np.arange(half) / half)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def attention_layer(x, w, attn):
    """Query i sees keys i - window + 1 to i."""
    length, heads, kv_heads = len(x), attn["num_heads"], attn["num_kv_heads"]
    width = x.shape[1] // heads

    def project(name, count):
        return (x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)).reshape(length, count, width)

    q = rotate(project("q_proj", heads), attn["rope_theta"])
    k = rotate(project("k_proj", kv_heads), attn["rope_theta"])
    v = project("v_proj", kv_heads)
    distance = np.arange(length)[:, None] - np.arange(length)[None]
    seen = (distance >= 0) & (distance < (attn["window_size"] or length))
    out = np.empty_like(q)
    for head in range(heads):
        shared = head // (heads // kv_heads)
        scores = np.where(seen, q[:, head] @ k[:, shared].T * width**-0.5, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, head] = weights / weights.sum(-1, keepdims=True) @ v[:, shared]
    return out.reshape(length, -1) @ w["o_proj.weight"].T


def forward(folder: pathlib.Path, tokens: np.ndarray) -> np.ndarray:
    """Logits float64 [T, vocab] of int tokens [T]."""
    config = json.loads((folder / "config.json").read_text())
    weights = {name: x.astype(np.float64) for name, x in load_file(folder / "model.safetensors").items()}
    eps, attn = config["norm_eps"], config["attn"]
    x = weights["model.embeddings.weight"][tokens]
    for i in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{i}."
        w = {name.removeprefix(prefix): x for name, x in weights.items() if name.startswith(prefix)}
        mixer = {name.removeprefix("attn."): x for name, x in w.items()}
        h = rms_norm(x, w["attn_norm.weight"], eps)
        softmax = attn is not None and i in attn["layers"]
        x = x + (attention_layer(h, mixer, attn) if softmax else delta_layer(h, mixer, config))
        h = rms_norm(x, w["mlp_norm.weight"], eps)
        hidden = silu(h @ w["mlp.gate_proj.weight"].T) * (h @ w["mlp.up_proj.weight"].T)
        x = x + hidden @ w["mlp.down_proj.weight"].T
    head = weights.get("lm_head.weight", weights["model.embeddings.weight"])
    return rms_norm(x, weights["model.norm.weight"], eps) @ head.T
