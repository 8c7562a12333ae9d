"""Compares the gradients of fla's chunked kernel with those of its naive recurrence in float32; exits 1 above 3 %."""
import sys

import kernels
import torch
import torch.nn.functional as F
from fla.ops.gated_delta_rule import chunk_gated_delta_rule
from fla.ops.gated_delta_rule.naive import naive_recurrent_gated_delta_rule

kernels.lift_refusal()
torch.manual_seed(0)
B, T, H, D = 4, 256, 3, 128
x = {"q": torch.randn(B, T, H, D), "k": torch.randn(B, T, H, D) + 0.7, "v": torch.randn(B, T, H, D),
     "g": torch.randn(B, T, H), "beta": torch.randn(B, T, H), "A_log": torch.rand(H), "dt_bias": torch.randn(H) - 3}
do = torch.randn(B, T, H, D, device="cuda")
low = {n: t.cuda().to(torch.bfloat16).requires_grad_() for n, t in x.items()}
ref = {n: t.detach().float().clone().requires_grad_() for n, t in low.items()}
o = chunk_gated_delta_rule(low["q"], low["k"], low["v"], g=low["g"], beta=low["beta"], use_qk_l2norm_in_kernel=True,
                           use_beta_sigmoid_in_kernel=True, allow_neg_eigval=False, state_v_first=True,
                           use_gate_in_kernel=True, A_log=low["A_log"], dt_bias=low["dt_bias"])[0]
o.backward(do.to(o.dtype))


def unit(t):
    return t * torch.rsqrt(t.pow(2).sum(-1, keepdim=True) + 1e-6)


g = -ref["A_log"].exp() * F.softplus(ref["g"] + ref["dt_bias"])
r = naive_recurrent_gated_delta_rule(unit(ref["q"]), unit(ref["k"]), ref["v"], ref["beta"].sigmoid(), g)[0]
r.backward(do)
errors = {"o": ((o.float() - r).norm() / r.norm()).item()}
for n in x:
    errors[n] = ((low[n].grad.float() - ref[n].grad).norm() / ref[n].grad.norm()).item()
print("relative errors", {n: round(e, 4) for n, e in errors.items()}, "warps", kernels.WARPS)
sys.exit(0 if max(errors.values()) < 0.03 else 1)
