"""Gives fla's Attention layer a `flash_attn` module when the real package is not installed.

On a GPU it calls the flash-attention kernel inside PyTorch (with its window); on a CPU, or in float32, it is plain
softmax attention. Import this before fla.
"""
import importlib.machinery
import math
import sys
import types

import torch
import transformers.utils  # noqa: F401  (probes for the real flash_attn before the stand-in exists)


def plain(q, k, v, window):
    """q [B, T, H, D], k and v [B, S, G, D] -> [B, T, H, D]; causal, key j visible to query i when i - window < j <= i."""
    t, s = q.shape[1], k.shape[1]
    r = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(r, 2), v.repeat_interleave(r, 2)
    i = torch.arange(s - t, s, device=q.device)[:, None]
    j = torch.arange(s, device=q.device)[None]
    hidden = (j > i) | (j <= i - window)
    scores = torch.einsum("bthd,bshd->bhts", q.float(), k.float()) / math.sqrt(q.shape[-1])
    p = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    return torch.einsum("bhts,bshd->bthd", p, v.float()).to(q.dtype)


def flash_attn_func(q, k, v, causal=True, window_size=(-1, -1), **_):
    assert causal
    window = window_size[0] + 1 if window_size[0] >= 0 else k.shape[1]
    if q.is_cuda and q.dtype != torch.float32:
        r = q.shape[2] // k.shape[2]
        k, v = k.repeat_interleave(r, 2), v.repeat_interleave(r, 2)
        return torch.ops.aten._flash_attention_forward(
            q, k, v, None, None, q.shape[1], k.shape[1], 0.0, True, False,
            window_size_left=window - 1, window_size_right=0)[0]
    return plain(q, k, v, window)


def flash_attn_varlen_func(*_, **__):
    raise NotImplementedError("packed rows are trained without cu_seqlens")


if "flash_attn" not in sys.modules:
    module = types.ModuleType("flash_attn")
    module.__spec__ = importlib.machinery.ModuleSpec("flash_attn", None)
    module.flash_attn_func = flash_attn_func
    module.flash_attn_varlen_func = flash_attn_varlen_func
    sys.modules["flash_attn"] = module
