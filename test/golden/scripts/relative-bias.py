"""Golden relative attention bias of T5 by Hugging Face transformers: buckets by distance, and the causal
self-attention of a decoder layer over random hidden states.

Usage: python relative-bias.py OUT     writes OUT/relative-bias.
"""

import pathlib
import sys

import torch
from golden import versions, write_json
from safetensors.torch import save_file
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5Attention

SEED = 72
TOKENS, HIDDEN, HEADS, WIDTH = 70, 24, 3, 8
# buckets, maxDistance: T5's own, one that the text outgrows, and odd ones
SHAPES = [(32, 128), (8, 20), (7, 100), (64, 1000)]


def attention(buckets, distance):
    config = T5Config(
        d_model=HIDDEN, d_kv=WIDTH, num_heads=HEADS, is_decoder=True, dropout_rate=0.0,
        relative_attention_num_buckets=buckets, relative_attention_max_distance=distance,
    )  # fmt: skip
    config._attn_implementation = "eager"
    return T5Attention(config, has_relative_attention_bias=True, layer_idx=0).eval()


@torch.no_grad()
def main():
    torch.manual_seed(SEED)
    arrays = {}
    for buckets, distance in SHAPES:
        back = torch.arange(distance + 50)
        sizes = dict(num_buckets=buckets, max_distance=distance)
        bucket = T5Attention._relative_position_bucket(-back, bidirectional=False, **sizes)
        arrays[f"buckets_{buckets}_{distance}"] = bucket.int()
    buckets, distance = SHAPES[1]
    layer = attention(buckets, distance)
    for weight in (layer.q, layer.k, layer.v):
        weight.weight.normal_(std=0.3)
    layer.o.weight.copy_(torch.eye(HEADS * WIDTH))
    layer.relative_attention_bias.weight.normal_()
    hidden = torch.randn(1, TOKENS, HIDDEN)
    mask = torch.full((TOKENS, TOKENS), torch.finfo(torch.float32).min).triu(1)[None, None]
    out = layer(hidden, mask=mask)[0]
    for name in "qkv":
        arrays[name] = getattr(layer, name)(hidden).view(TOKENS, HEADS, WIDTH)
    arrays["embedding"] = layer.relative_attention_bias.weight
    arrays["out"] = out.view(TOKENS, HEADS, WIDTH)
    folder = pathlib.Path(sys.argv[1]) / "relative-bias"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in arrays.items()}, folder / "golden.safetensors")
    meta = {"family": "mechanisms/relative-bias", "seed": SEED}
    meta["versions"] = versions("torch", "transformers", "safetensors")
    meta["buckets"], meta["max_distance"] = SHAPES[1]
    meta["arrays"] = {key: list(value.shape) for key, value in arrays.items()}
    write_json(folder / "golden.json", meta)


torch.set_num_threads(1)
main()
