"""retnet, gla, delta_net, kda, hgrn2 and gsa in numpy float64, token by token, written from the papers (arXiv:2307.08621, 2312.06635,
2406.06484, 2510.26692, 2404.07904,
2409.07146).
Shares no code with fla: it is what the fla run is checked against before its output becomes a golden.
"""

import json
import pathlib

import numpy as np
from gated_deltanet_float64 import attention_layer, rms_norm, rotate, short_convolution, sigmoid, silu, unit
from safetensors.numpy import load_file


def project(x, w, part, heads, config):
    """x [T, C] -> [T, heads, width], through the convolution where the config has one."""
    y = x @ w[f"{part}_proj.weight"].T
    if config["use_short_conv"]:
        y = short_convolution(y, w[f"{part}_conv1d.weight"])
    return y.reshape(len(x), heads, -1)


def gated_norm(out, x, w, config):
    """The norm of each head, then times silu of the gate where there is one."""
    weight = next(value for name, value in w.items() if name in ("o_norm.weight", "g_norm.weight", "g_norm_swish_gate.weight"))
    out = rms_norm(out, weight, config["norm_eps"])
    if "g_proj.weight" in w:
        out = out * silu((x @ w["g_proj.weight"].T).reshape(out.shape))
    return out.reshape(len(x), -1) @ w["o_proj.weight"].T


def decayed_layer(x, w, config):
    """RetNet and GLA: S = diag(e^g) S + k v', o = S' q / sqrt(K)."""
    length, heads = len(x), config["num_heads"]
    kv_heads = config["num_kv_heads"] or heads
    q = project(x, w, "q", heads, config)
    k = project(x, w, "k", kv_heads, config)
    v = project(x, w, "v", kv_heads, config)
    width = q.shape[-1]
    if config["model_type"] == "retnet":
        q, k = rotate(q, 10000.0), rotate(k, 10000.0)
        decay = np.broadcast_to((1 - 2.0 ** (-5 - np.arange(heads)))[None, :, None], k.shape)
    else:
        low = x @ w["gk_proj.0.weight"].T
        decay = sigmoid(low @ w["gk_proj.1.weight"].T + w["gk_proj.1.bias"]).reshape(k.shape) ** (1 / 16)
    out = np.empty((length, heads, v.shape[-1]))
    for head in range(heads):
        shared = head // (heads // kv_heads)
        state = np.zeros((width, v.shape[-1]))
        for t in range(length):
            state = decay[t, shared][:, None] * state + np.outer(k[t, shared], v[t, shared])
            out[t, head] = state.T @ q[t, head] * width**-0.5
    return gated_norm(out, x, w, config)


def delta_layer(x, w, config):
    """S += k (beta (v - S' k))', o = S' q / sqrt(K)."""
    length, heads = len(x), config["num_heads"]

    def part(name):
        y = x @ w[f"{name}_proj.weight"].T
        y = short_convolution(y, w[f"{name}_conv1d.weight"]) if config["use_short_conv"] else silu(y)
        return y.reshape(length, heads, -1)

    q, k, v = unit(part("q")), unit(part("k")), part("v")
    beta = sigmoid(x @ w["b_proj.weight"].T) * (2 if config["allow_neg_eigval"] else 1)
    out = np.empty(v.shape)
    for head in range(heads):
        state = np.zeros((q.shape[-1], v.shape[-1]))
        for t in range(length):
            state += np.outer(k[t, head], beta[t, head] * (v[t, head] - state.T @ k[t, head]))
            out[t, head] = state.T @ q[t, head] * q.shape[-1] ** -0.5
    return gated_norm(out, x, w, config)


def kda_layer(x, w, config):
    """S = diag(e^g) S; S += k (beta (v - S' k))', o = S' q / sqrt(K), S a head of the values."""
    length, heads = len(x), config["num_v_heads"] or config["num_heads"]

    def part(name, count):
        y = x @ w[f"{name}_proj.weight"].T
        y = short_convolution(y, w[f"{name}_conv1d.weight"]) if config["use_short_conv"] else silu(y)
        return y.reshape(length, count, -1)

    q, k = unit(part("q", config["num_heads"])), unit(part("k", config["num_heads"]))
    v = part("v", heads)
    f = (x @ w["f_proj.0.weight"].T @ w["f_proj.1.weight"].T + w["dt_bias"]).reshape(length, heads, -1)
    rate = np.exp(w["A_log"])[None, :, None]
    g = config["lower_bound"] * sigmoid(rate * f) if config["safe_gate"] else -rate * np.logaddexp(0, f)
    beta = sigmoid(x @ w["b_proj.weight"].T) * (2 if config["allow_neg_eigval"] else 1)
    out = np.empty(v.shape)
    for head in range(heads):
        shared = head // (heads // config["num_heads"])
        state = np.zeros((q.shape[-1], v.shape[-1]))
        for t in range(length):
            state = np.exp(g[t, head])[:, None] * state
            key = k[t, shared]
            state += np.outer(key, beta[t, head] * (v[t, head] - state.T @ key))
            out[t, head] = state.T @ q[t, shared] * q.shape[-1] ** -0.5
    gate = x @ w["g_proj.0.weight"].T @ w["g_proj.1.weight"].T + w["g_proj.1.bias"]
    out = rms_norm(out, w["o_norm.weight"], config["norm_eps"]) * sigmoid(gate).reshape(out.shape)
    return out.reshape(length, -1) @ w["o_proj.weight"].T


def hgrn2_layer(x, w, config):
    """S = diag(e^g) S + (1 - e^g) i', e^g = bound + (1 - bound) sigmoid(f), o = S' silu(q) / sqrt(K)."""
    length, heads = len(x), config["num_heads"]

    def part(name):
        y = x @ w[f"{name}_proj.weight"].T
        if config["use_short_conv"]:
            taps = w[f"{name}_conv1d.weight"]
            padded = np.concatenate([np.zeros((taps.shape[-1] - 1, y.shape[1])), y])
            y = sum(padded[t : t + length] * taps[:, 0, t] for t in range(taps.shape[-1]))
        return y.reshape(length, heads, -1)

    q, v = silu(part("q")), part("i")
    bound = w["bound"].reshape(heads, -1)
    kept = bound + (1 - bound) * sigmoid(part("f"))
    out = np.empty(v.shape)
    for head in range(heads):
        state = np.zeros((q.shape[-1], v.shape[-1]))
        for t in range(length):
            state = kept[t, head][:, None] * state + np.outer(1 - kept[t, head], v[t, head])
            out[t, head] = state.T @ q[t, head] * q.shape[-1] ** -0.5
    # fla calls its norm without an eps: the function's own, whatever the config says.
    return rms_norm(out.reshape(length, -1), w["g_norm.weight"], 1e-5) @ w["o_proj.weight"].T


def gsa_layer(x, w, config):
    """keys = keys diag(e^g) + k s', p = softmax(keys' q), values = diag(e^g) values + s v', o = values' p, s = 1 - e^g."""
    length, heads = len(x), config["num_heads"]
    kv_heads = config["num_kv_heads"] or heads
    feature_map = {"swish": silu, "relu": lambda y: np.maximum(y, 0)}[config["feature_map"]]
    q = feature_map(project(x, w, "q", heads, config))
    k = feature_map(project(x, w, "k", kv_heads, config))
    v = silu(project(x, w, "v", kv_heads, config))
    gate = (x @ w["f_proj.weight"].T).reshape(length, kv_heads, config["num_slots"])
    g = -np.logaddexp(0, -gate) / config["gate_logit_normalizer"]
    out = np.empty((length, heads, v.shape[-1]))
    for head in range(heads):
        shared = head // (heads // kv_heads)
        keys = np.zeros((k.shape[-1], g.shape[-1]))
        values = np.zeros((g.shape[-1], v.shape[-1]))
        for t in range(length):
            kept, written = np.exp(g[t, shared]), -np.expm1(g[t, shared])
            keys = keys * kept + np.outer(k[t, shared], written)
            values = kept[:, None] * values + np.outer(written, v[t, shared])
            scores = keys.T @ q[t, head]
            weights = np.exp(scores - scores.max())
            out[t, head] = values.T @ (weights / weights.sum())
    # fla calls its norm without an eps: the function's own, whatever the config says.
    return rms_norm(silu(out.reshape(length, -1)), w["g_norm.weight"], 1e-5) @ w["o_proj.weight"].T


def lower_bounds(weights, config):
    """[layers, C]: the softmax over the layers, added up from the second one on; 0 where there are none."""
    if "model.lower_bounds" not in weights:
        return np.zeros((config["num_hidden_layers"], config["hidden_size"]))
    parts = np.exp(weights["model.lower_bounds"])
    parts = parts / parts.sum(0)
    return parts.cumsum(0) - parts[0]


def forward(folder: pathlib.Path, tokens: np.ndarray) -> np.ndarray:
    """Logits float64 [T, vocab] of int tokens [T]."""
    config = json.loads((folder / "config.json").read_text())
    weights = {name: x.astype(np.float64) for name, x in load_file(folder / "model.safetensors").items()}
    eps, attn = config["norm_eps"], config["attn"]
    layer = {"delta_net": delta_layer, "kda": kda_layer, "hgrn2": hgrn2_layer, "gsa": gsa_layer}.get(config["model_type"], decayed_layer)
    x = weights["model.embeddings.weight"][tokens]
    for i in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{i}."
        w = {name.removeprefix(prefix): x for name, x in weights.items() if name.startswith(prefix)}
        mixer = {name.removeprefix("attn."): x for name, x in w.items() if name.startswith("attn.")}
        mixer["bound"] = lower_bounds(weights, config)[i]
        h = rms_norm(x, w["attn_norm.weight"], eps)
        softmax = attn is not None and i in attn["layers"]
        x = x + (attention_layer(h, mixer, attn) if softmax else layer(h, mixer, config))
        h = rms_norm(x, w["mlp_norm.weight"], eps)
        hidden = silu(h @ w["mlp.gate_proj.weight"].T) * (h @ w["mlp.up_proj.weight"].T)
        x = x + hidden @ w["mlp.down_proj.weight"].T
    head = weights.get("lm_head.weight", weights["model.embeddings.weight"])
    return rms_norm(x, weights["model.norm.weight"], eps) @ head.T
