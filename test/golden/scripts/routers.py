"""Golden choices of mixtures of experts by the routers of Hugging Face transformers.

Usage: python routers.py OUT     writes OUT/routers.
"""

import pathlib
import sys

import torch
from golden import versions, write_json
from safetensors.torch import save_file
from transformers import DeepseekV3Config, Qwen3MoeConfig
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

SEED = 71
TOKENS, HIDDEN, EXPERTS, COUNT = 40, 16, 24, 5


def routers():
    softmax = dict(hidden_size=HIDDEN, num_experts=EXPERTS, num_experts_per_tok=COUNT)
    sigmoid = dict(
        hidden_size=HIDDEN, n_routed_experts=EXPERTS, num_experts_per_tok=COUNT, n_group=1, topk_group=1,
        routed_scaling_factor=2.5,
    )  # fmt: skip
    for renormalised in (True, False):
        name = "renormalised" if renormalised else "plain"
        yield f"softmax_{name}", Qwen3MoeTopKRouter(Qwen3MoeConfig(**softmax, norm_topk_prob=renormalised))
        yield f"sigmoid_{name}", DeepseekV3TopkRouter(DeepseekV3Config(**sigmoid, norm_topk_prob=renormalised))


@torch.no_grad()
def main():
    torch.manual_seed(SEED)
    arrays = {}
    for name, router in routers():
        router.weight.normal_()
        if hasattr(router, "e_score_correction_bias"):
            router.e_score_correction_bias.normal_(std=0.2)
            arrays[f"{name}.bias"] = router.e_score_correction_bias
        logits, weights, ids = router(0.5 * torch.randn(TOKENS, HIDDEN))
        # By expert: the order of topk(sorted=False) is no part of the model.
        by_expert = torch.zeros(TOKENS, EXPERTS).scatter(1, ids, weights)
        arrays |= {f"{name}.logits": logits, f"{name}.weights": by_expert}
    folder = pathlib.Path(sys.argv[1]) / "routers"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.float().contiguous() for key, value in arrays.items()}, folder / "golden.safetensors")
    meta = {"family": "mechanisms/routers", "versions": versions("torch", "transformers", "safetensors"), "seed": SEED}
    meta["arrays"] = {key: list(value.shape) for key, value in arrays.items()}
    write_json(folder / "golden.json", meta)


torch.set_num_threads(1)
main()
