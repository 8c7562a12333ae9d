"""The model in plain PyTorch float32 on a CPU, chunked and with a state: an independent check and a CPU evaluation.

Gated DeltaNet (arXiv 2412.06464) in the chunked form with forward substitution; sliding-window attention with RoPE;
SwiGLU. `python3 reference.py` compares it with the golden logits of parity.py.
"""
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

HERE = Path(__file__).parent
CHUNK = 64


def norm(x, w, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * w


def unit(x):
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6)


def convolve(x, w, past):
    """Causal depthwise convolution and SiLU: x [T, D], w [D, 1, K], past [K - 1, D] -> [T, D], new past."""
    full = torch.cat([past, x])
    y = F.conv1d(full.t()[None], w, groups=w.shape[0])[0].t()
    return F.silu(y), full[-past.shape[0]:]


def delta_rule(q, k, v, g, beta, state):
    """q, k [T, H, K], v [T, H, V], g (log decay) and beta [T, H], state [H, K, V] -> o [T, H, V], state."""
    t, h, d = q.shape
    pad = -t % CHUNK
    q, k, v, g, beta = (F.pad(x, (0, 0) * (x.ndim - 1) + (0, pad)) for x in (q, k, v, g, beta))
    def blocks(x):
        return x.unflatten(0, (-1, CHUNK)).movedim(2, 1)
    q, k, v, g, beta = (blocks(x) for x in (q, k, v, g, beta))
    q = q / math.sqrt(d)
    total = g.cumsum(-1)
    decay = (total[..., :, None] - total[..., None, :]).tril().exp().tril()
    kb = k * beta[..., None]
    low = (kb @ k.mT * decay).tril(-1) + torch.eye(CHUNK)
    both = torch.cat([v * beta[..., None], kb * total.exp()[..., None]], -1)
    u, w = torch.linalg.solve_triangular(low, both, upper=False, unitriangular=True).split([v.shape[-1], d], -1)
    inner = (q @ k.mT * decay).tril()
    qd, kd = q * total.exp()[..., None], k * (total[..., -1:] - total).exp()[..., None]
    last = total[..., -1].exp()[..., None, None]
    out = []
    for i in range(q.shape[0]):
        new = u[i] - w[i] @ state
        out.append(qd[i] @ state + inner[i] @ new)
        state = last[i] * state + kd[i].mT @ new
    return torch.cat([o.movedim(0, 1) for o in out])[:t], state


def rotate(x, start, theta):
    """RoPE over the two halves of the head: x [T, H, D], first position `start`."""
    d = x.shape[-1]
    inv = theta ** (-torch.arange(0, d, 2, dtype=torch.float32) / d)
    angle = torch.arange(start, start + x.shape[0], dtype=torch.float32)[:, None] * inv
    c, s = angle.cos()[:, None], angle.sin()[:, None]
    a, b = x.chunk(2, -1)
    return torch.cat([a * c - b * s, b * c + a * s], -1)


def window_attention(q, k, v, window, start):
    """q [T, H, D]; k, v [S, G, D] end at the same token; key j is visible to query i when i - window < j <= i."""
    t, s, r = q.shape[0], k.shape[0], q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(r, 1).movedim(1, 0), v.repeat_interleave(r, 1).movedim(1, 0)
    q, out = q.movedim(1, 0), []
    for at in range(0, t, window):
        end = min(at + window, t)
        first = max(0, s - t + at - window + 1)
        i = torch.arange(s - t + at, s - t + end)[:, None]
        j = torch.arange(first, s - t + end)[None]
        mask = (j <= i) & (j > i - window)
        out.append(F.scaled_dot_product_attention(q[:, at:end], k[:, first:s - t + end], v[:, first:s - t + end],
                                                  attn_mask=mask))
    return torch.cat(out, 1).movedim(0, 1)


class Model:
    def __init__(self, folder=HERE.parent / "default"):
        self.c = json.loads((folder / "config.json").read_text())
        self.w = {k.removeprefix("model."): t.float() for k, t in load_file(str(folder / "model.safetensors")).items()}

    def start(self):
        return {"at": 0, "layers": [None] * self.c["num_hidden_layers"]}

    def mix(self, n, x, state):
        w, c = {k.removeprefix(f"layers.{n}.attn."): t for k, t in self.w.items() if k.startswith(f"layers.{n}.attn.")}, self.c
        old = state["layers"][n]
        if n in c["attn"]["layers"]:
            a = c["attn"]
            d = c["hidden_size"] // a["num_heads"]
            q, k, v = ((x @ w[f"{p}_proj.weight"].t()).unflatten(-1, (-1, d)) for p in "qkv")
            q, k = rotate(q, state["at"], a["rope_theta"]), rotate(k, state["at"], a["rope_theta"])
            if old is not None:
                k, v = torch.cat([old[0], k]), torch.cat([old[1], v])
            y = window_attention(q, k, v, a["window_size"], state["at"])
            state["layers"][n] = (k[-a["window_size"] + 1:], v[-a["window_size"] + 1:])
            return y.flatten(-2) @ w["o_proj.weight"].t()
        hd, vd = c["head_dim"], int(c["head_dim"] * c["expand_v"])
        if old is None:
            old = [torch.zeros(c["conv_size"] - 1, w[f"{p}_proj.weight"].shape[0]) for p in "qkv"]
            old.append(torch.zeros(c["num_heads"], hd, vd))
        parts, past = [], []
        for p, o in zip("qkv", old):
            y, keep = convolve(x @ w[f"{p}_proj.weight"].t(), w[f"{p}_conv1d.weight"], o)
            parts.append(y.unflatten(-1, (-1, vd if p == "v" else hd)))
            past.append(keep)
        q, k, v = parts
        g = -w["A_log"].exp() * F.softplus(x @ w["a_proj.weight"].t() + w["dt_bias"])
        o, s = delta_rule(unit(q), unit(k), v, g, (x @ w["b_proj.weight"].t()).sigmoid(), old[3])
        state["layers"][n] = [*past, s]
        gate = (x @ w["g_proj.weight"].t()).unflatten(-1, (-1, vd))
        return (norm(o, w["o_norm.weight"], c["norm_eps"]) * F.silu(gate)).flatten(-2) @ w["o_proj.weight"].t()

    @torch.no_grad()
    def hidden(self, ids, state):
        """ids [T] -> [T, C] after the last norm; advances the state."""
        w, eps = self.w, self.c["norm_eps"]
        x = w["embeddings.weight"][ids]
        for n in range(self.c["num_hidden_layers"]):
            p = f"layers.{n}."
            x = x + self.mix(n, norm(x, w[p + "attn_norm.weight"], eps), state)
            y = norm(x, w[p + "mlp_norm.weight"], eps)
            y = F.silu(y @ w[p + "mlp.gate_proj.weight"].t()) * (y @ w[p + "mlp.up_proj.weight"].t())
            x = x + y @ w[p + "mlp.down_proj.weight"].t()
        state["at"] += len(ids)
        return norm(x, w["norm.weight"], eps)

    def logits(self, hidden):
        return hidden @ self.w["embeddings.weight"].t()

    @torch.no_grad()
    def losses(self, ids, piece=8192):
        """Nats of ids[1:] given their past."""
        state, out = self.start(), []
        for at in range(0, len(ids) - 1, piece):
            x = ids[at:at + piece + 1]
            h = self.hidden(x[:-1], state)
            out += [F.cross_entropy(self.logits(a), b, reduction="none") for a, b in zip(h.split(1024), x[1:].split(1024))]
        return torch.cat(out)


def main():
    model = Model()
    gold = load_file(str(HERE.parent.parent / "test" / "golden" / "default-model" / "parity.safetensors"))
    for i in range(3):
        ids, rows = gold[f"ids.{i}"].long(), gold[f"positions.{i}"].long()
        state = model.start()
        h = torch.cat([model.hidden(x, state) for x in ids.split(777)])
        z = model.logits(h)
        want = gold[f"logits.{i}"]
        gap = gold[f"top.{i}"][:, 0] - gold[f"top.{i}"][:, 1]
        sure = gap > 10 * 1e-4 * want.abs().max()
        same = (z.argmax(-1) == gold[f"argmax.{i}"])
        print("prompt", i, "relative error", ((z[rows] - want).norm() / want.norm()).item(), "argmax equal",
              int(same.sum()), "of", len(ids), "and where sure", int(same[sure].sum()), "of", int(sure.sum()))


if __name__ == "__main__":
    main()
