"""Makes flash-linear-attention importable and runnable on the CPU: import this before anything of fla.

Replaced, and by what:
  flash_attn.flash_attn_func   plain softmax in float32 below (flash-attn has no CPU build); window_size = (left, right)
                               lets query i see keys i - left to i + right, and fla asks for (window_size - 1, 0)
  Triton's autotuner           takes each kernel's first tuning configuration: an interpreter has nothing to time
"""

import importlib.machinery
import os
import sys
import types

os.environ["TRITON_INTERPRET"] = "1"

import torch  # noqa: E402
from triton.runtime.autotuner import Autotuner  # noqa: E402


def flash_attn_func(q, k, v, causal, window_size):
    """q [B, T, Hq, D]; k, v [B, S, Hkv, D], the last T keys belong to the T queries. Returns [B, T, Hq, D]."""
    assert causal and q.dtype == torch.float32
    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, dim=2), v.repeat_interleave(group, dim=2)
    scores = torch.einsum("bthd,bshd->bhts", q, k) * q.shape[-1] ** -0.5
    query = torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1]
    key = torch.arange(k.shape[1])[None, :]
    seen = key <= query
    if window_size[0] >= 0:
        seen &= key >= query - window_size[0]
    return torch.einsum("bhts,bshd->bthd", scores.masked_fill(~seen, float("-inf")).softmax(-1), v)


flash_attn = types.ModuleType("flash_attn")
flash_attn.__spec__ = importlib.machinery.ModuleSpec("flash_attn", None)
flash_attn.flash_attn_func = flash_attn_func
flash_attn.flash_attn_varlen_func = None
sys.modules["flash_attn"] = flash_attn

autotuner_init = Autotuner.__init__
Autotuner.__init__ = lambda self, fn, names, configs, *rest, **more: autotuner_init(
    self, fn, names, configs[:1], *rest, **more
)
