"""The mechanisms that prefill.py compares: inputs, the calls of the other libraries, and the recurrence in float64."""
import dataclasses
import typing

import torch
import torch.nn.functional as F


@dataclasses.dataclass
class Mechanism:
    name: str
    rule: str
    decay: typing.Optional[str]
    peers: dict  # name of a library -> inputs [B, T, H, ...] -> outputs [B, T, H, V], final states [B, H, K, V]
    K: int = 128
    V: int = 128
    denominator: bool = False
    shared_keys: bool = False  # one head of q and k for all of v

    @property
    def scale(self):
        return 1.0 if self.shared_keys else self.K ** -0.5


def gdn(x):
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    return chunk_gated_delta_rule(x["q"], x["k"], x["v"], x["g"], x["beta"], scale=128 ** -0.5, output_final_state=True)


def delta(x):
    from fla.ops.delta_rule import chunk_delta_rule
    return chunk_delta_rule(x["q"], x["k"], x["v"], x["beta"].to(x["q"].dtype), scale=128 ** -0.5, output_final_state=True)


def kda(x):
    from fla.ops.kda import chunk_kda
    return chunk_kda(x["q"], x["k"], x["v"], x["g"], x["beta"], scale=128 ** -0.5, output_final_state=True)


def gla(x):
    from fla.ops.gla import chunk_gla
    return chunk_gla(x["q"], x["k"], x["v"], x["g"], scale=128 ** -0.5, output_final_state=True)


def rwkv7(x):
    from fla.ops.generalized_delta_rule import chunk_dplr_delta_rule
    return chunk_dplr_delta_rule(x["q"], x["k"], x["v"], x["a"], x["b"], x["g"].to(x["q"].dtype), scale=64 ** -0.5,
                                 output_final_state=True)


def simple_gla(x):
    from fla.ops.simple_gla import chunk_simple_gla
    return chunk_simple_gla(x["q"], x["k"], x["v"], x["g"], scale=128 ** -0.5, output_final_state=True)


def retention(x):
    from fla.ops.simple_gla import chunk_simple_gla
    return chunk_simple_gla(x["q"], x["k"], x["v"], g_gamma=x["g"], scale=128 ** -0.5, output_final_state=True)


def linear(x):
    from fla.ops.simple_gla import chunk_simple_gla
    return chunk_simple_gla(x["q"], x["k"], x["v"], scale=128 ** -0.5, output_final_state=True)


def linear_normalised(x):
    from fla.ops.linear_attn import chunk_linear_attn
    out, (state, _) = chunk_linear_attn(x["q"], x["k"], x["v"], scale=128 ** -0.5, output_final_state=True, normalize=True)
    return out, state


def mamba2_fla(x):
    from fla.ops.simple_gla import chunk_simple_gla
    return chunk_simple_gla(x["q_heads"], x["k_heads"], x["v"], x["g"], scale=1.0, output_final_state=True)


def mamba2_ssd(x):
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    out, state = mamba_chunk_scan_combined(x["x"], x["dt"], x["A"], x["k"], x["q"], 256, return_final_states=True)
    return out, state.transpose(-1, -2)


def all():
    return [
        Mechanism("GDN", "delta", "token", {"fla": gdn}),
        Mechanism("DeltaNet", "delta", None, {"fla": delta}),
        Mechanism("KDA", "delta", "channel", {"fla": kda}),
        Mechanism("GLA", "additive", "channel", {"fla": gla}),
        Mechanism("RWKV-7", "lowRank", "channel", {"fla": rwkv7}, K=64, V=64),
        Mechanism("simple GLA", "additive", "token", {"fla": simple_gla}),
        Mechanism("RetNet", "additive", "head", {"fla": retention}),
        Mechanism("linear", "additive", None, {"fla": linear}),
        Mechanism("linear with denominator", "additive", None, {"fla": linear_normalised}, denominator=True),
        Mechanism("Mamba-2", "additive", "token", {"fla": mamba2_fla, "mamba_ssm": mamba2_ssd}, V=64, shared_keys=True),
    ]


OURS = ("q", "k", "v", "g", "beta", "a", "b")  # of what inputs() makes, what linattn reads


def inputs(m, tokens, heads):
    """One block of tokens: bfloat16 q, k, v (k of length 1), float32 gates.

    mamba_ssm takes x and dt with v = x dt and g = A dt; dt is a power of two, so that v is exact in bfloat16."""
    torch.manual_seed(1)
    normal = lambda *shape: torch.randn(*shape, device="cuda")
    key_heads = 1 if m.shared_keys else heads
    q, k, v = normal(tokens, key_heads, m.K), normal(tokens, key_heads, m.K), normal(tokens, heads, m.V)
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    if m.denominator:
        q, k = q.abs(), k.abs()
    made = {"q": q.bfloat16(), "k": k.bfloat16(), "v": v.bfloat16()}
    if m.decay == "head":
        made["g"] = torch.log1p(-torch.exp2(-5.0 - torch.arange(heads, device="cuda", dtype=torch.float32) % 8))
    if m.decay == "token":
        made["g"] = F.logsigmoid(normal(tokens, heads) + 3)
    if m.decay == "channel":
        made["g"] = F.logsigmoid(normal(tokens, heads, m.K) + 3)
    if m.rule == "delta":
        made["beta"] = torch.sigmoid(normal(tokens, heads))
    if m.rule == "lowRank":
        kappa = F.normalize(normal(tokens, heads, m.K), dim=-1)
        rate = torch.sigmoid(normal(tokens, heads, m.K))
        made["a"], made["b"] = (-kappa).bfloat16(), (kappa * rate).bfloat16()
    if m.shared_keys:
        dt = torch.exp2(-torch.randint(2, 8, (tokens, heads), device="cuda").float())
        made |= {"x": made["v"], "dt": dt, "A": torch.full((heads,), -1.0, device="cuda")}
        made |= {"v": made["x"] * dt[..., None].bfloat16(), "g": -dt}
    return made


def repeated(m, inputs, batch, tokens):
    """[batch, tokens, ...] of blocks [block, ...]; decay by head and A have no tokens. Keys that all heads share also
    once for each head, as fla takes them."""
    def of(name, tensor):
        if name == "A" or name == "g" and m.decay == "head":
            return tensor
        times = max(1, batch * tokens // tensor.shape[0])
        return tensor.repeat(times, *[1] * (tensor.dim() - 1)).view(batch, tokens, *tensor.shape[1:])
    whole = {name: of(name, tensor) for name, tensor in inputs.items()}
    if m.shared_keys:
        heads = whole["v"].shape[2]
        whole |= {name + "_heads": whole[name].expand(-1, -1, heads, -1).contiguous() for name in "qk"}
    return whole


def recurrence(m, x):
    """The definition, token by token, in float64."""
    x = {name: tensor.double() for name, tensor in x.items()}
    batch, tokens, heads, V = x["v"].shape
    q, k = (x[name].expand(-1, -1, heads, -1) for name in "qk")
    state = torch.zeros(batch, heads, m.K, V, dtype=torch.float64, device="cuda")
    total = torch.zeros(batch, heads, m.K, dtype=torch.float64, device="cuda")
    outs = []
    for t in range(tokens):
        before = state
        if m.decay == "head":
            state = state * x["g"].exp()[None, :, None, None]
        if m.decay == "token":
            state = state * x["g"][:, t].exp()[..., None, None]
        if m.decay == "channel":
            state = state * x["g"][:, t].exp()[..., None]
        kt, vt = k[:, t], x["v"][:, t]
        if m.rule == "delta":
            vt = x["beta"][:, t][..., None] * (vt - torch.einsum("bhkv,bhk->bhv", state, kt))
        if m.rule == "lowRank":
            state = state + torch.einsum("bhk,bhv->bhkv", x["b"][:, t], torch.einsum("bhkv,bhk->bhv", before, x["a"][:, t]))
        state = state + torch.einsum("bhk,bhv->bhkv", kt, vt)
        out = m.scale * torch.einsum("bhkv,bhk->bhv", state, q[:, t])
        if m.denominator:
            total = total + kt
            out = out / m.scale / ((total * q[:, t]).sum(-1, keepdim=True) + 1e-10)
        outs.append(out)
    return torch.stack(outs, 1), state


def floor_bytes(m, batch, tokens, heads):
    """Each input read once, each output written once, states written."""
    T = batch * tokens
    key_heads = 1 if m.shared_keys else heads
    per_token = 2 * (2 * key_heads * m.K + 2 * heads * m.V)
    per_token += {"token": 4 * heads, "channel": 4 * heads * m.K}.get(m.decay, 0)
    per_token += {"delta": 4 * heads, "lowRank": 4 * heads * m.K}.get(m.rule, 0)
    return T * per_token + 4 * batch * heads * m.K * m.V
