"""Feature maps, FAVOR+ and Linformer by their authors' code, on small random inputs; layouts are ours, [T, H, D].

fla: elu + 1, Hedgehog (joint), DPFP, Taylor, T2R, and normalised causal linear attention. performer-pytorch: FAVOR+.
linformer: self-attention with headwise, shared key-value and one-head projections, and cross-attention. LoLCATs has no
package: its Hedgehog is the line of src/model/feature_map.py (SoftmaxDim) in torch.
"""

import pathlib
import sys

import torch
from fla.modules import feature_map as maps
from fla.ops.linear_attn.naive import naive_recurrent_linear_attn
from linformer.linformer import LinformerSelfAttention
from performer_pytorch import performer_pytorch as performer
from safetensors.torch import save_file

from golden import versions, write_json

SEED = 11
PACKAGES = ("torch", "flash-linear-attention", "fla-core", "performer-pytorch", "linformer", "einops", "safetensors")


def feature_maps(arrays):
    x = torch.randn(9, 2, 16)
    t2r = maps.T2RFeatureMap(16, 24, bias=True)
    arrays["x"] = x
    arrays["elu1"] = torch.nn.functional.elu(x) + 1
    arrays["hedgehog_joint"] = maps.HedgehogFeatureMap(16)(x)  # its layer begins as the identity
    arrays["hedgehog_split"] = torch.cat([torch.softmax(x, -1), torch.softmax(-x, -1)], -1).clamp(min=1e-12)
    arrays["dpfp"] = maps.DPFPFeatureMap(16, nu=2)(x)
    arrays["taylor"] = maps.TaylorFeatureMap(16)(x)
    arrays["t2r"] = t2r(x)
    arrays["t2r_weight"] = t2r.layer.weight
    arrays["t2r_bias"] = t2r.layer.bias
    q, k = (torch.nn.functional.elu(torch.randn(1, 40, 2, 16)) + 1 for _ in "qk")
    v = torch.randn(1, 40, 2, 8)
    out, _ = naive_recurrent_linear_attn(q, k, v, scale=1.0, normalize=True)
    arrays.update({"attention_q": q[0], "attention_k": k[0], "attention_v": v[0], "attention_out": out[0]})


def favor(arrays):
    T, H, D, m = 40, 2, 16, 24
    heads = lambda x: x.transpose(0, 1)[None]  # [T, H, D] -> [1, H, T, D]
    ours = lambda x: x[0].transpose(0, 1)
    q, k, v = (torch.randn(T, H, D) for _ in "qkv")
    for scaling in (0, 1):
        w = performer.gaussian_orthogonal_random_matrix(m, D, scaling=scaling)
        fq = performer.softmax_kernel(heads(q), projection_matrix=w, is_query=True)
        fk = performer.softmax_kernel(heads(k), projection_matrix=w, is_query=False)
        arrays[f"directions_{scaling}"] = w
        arrays[f"queries_{scaling}"] = ours(fq)
        arrays[f"keys_{scaling}"] = ours(fk)
        arrays[f"out_{scaling}"] = ours(performer.linear_attention(fq, fk, heads(v)))
        relu = [performer.generalized_kernel(heads(x), projection_matrix=w) for x in (q, k)]
        arrays[f"relu_queries_{scaling}"] = ours(relu[0])
        arrays[f"relu_out_{scaling}"] = ours(performer.linear_attention(*relu, heads(v)))
    arrays.update({"q": q, "k": k, "v": v})


def linformer(arrays):
    dim, heads, slots, longest = 32, 4, 8, 24
    context = torch.randn(1, 17, dim)
    arrays["context"] = context[0]
    for name, options in {
        "headwise": {},
        "shared": {"share_kv": True},
        "one_head": {"one_kv_head": True},
    }.items():
        layer = LinformerSelfAttention(dim, longest, k=slots, heads=heads, **options)
        for part, tensor in layer.named_parameters():
            arrays[f"{name}.{part}"] = tensor
        for length in (longest, 13):  # shorter ones take the first rows of E and F
            x = torch.randn(1, length, dim)
            arrays[f"{name}.x_{length}"] = x[0]
            arrays[f"{name}.out_{length}"] = layer(x)[0]
        arrays[f"{name}.cross"] = layer(arrays[f"{name}.x_24"][None], context=context)[0]


@torch.no_grad()
def main():
    root = pathlib.Path(sys.argv[1])
    for name, make in {"feature-maps": feature_maps, "favor": favor, "linformer": linformer}.items():
        torch.manual_seed(SEED)
        arrays = {}
        make(arrays)
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        save_file({key: value.detach().float().contiguous() for key, value in arrays.items()}, folder / "golden.safetensors")
        meta = {"family": f"mechanisms/{name}", "versions": versions(*PACKAGES), "seed": SEED}
        meta["arrays"] = {key: list(value.shape) for key, value in arrays.items()}
        write_json(folder / "golden.json", meta)


torch.set_num_threads(1)
main()
