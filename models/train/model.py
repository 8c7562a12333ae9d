"""Builds fla's GatedDeltaNetForCausalLM from config.json, and loads or saves its weights."""
import json
from pathlib import Path

import attention_shim  # noqa: F401  (before fla)
import kernels
import torch
from fla.models import GatedDeltaNetConfig, GatedDeltaNetForCausalLM
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
kernels.lift_refusal()


def new_model(device, config_file=HERE.parent / "default" / "config.json", layers=None):
    values = json.loads(Path(config_file).read_text())
    if layers is not None:
        values["num_hidden_layers"] = layers
        values["attn"]["layers"] = [i for i in values["attn"]["layers"] if i < layers]
    config = GatedDeltaNetConfig(**values)
    model = GatedDeltaNetForCausalLM(config).float().to(device)
    model.lm_head.weight = model.model.embeddings.weight
    return model


def parameters(model):
    return sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())


def save_bfloat16(model, path):
    """One safetensors file of unique tensors (no lm_head: it is tied to the embedding)."""
    state = {k: v.detach().to(torch.bfloat16).cpu().contiguous() for k, v in model.state_dict().items()
             if k != "lm_head.weight"}
    save_file(state, str(path), metadata={"format": "pt"})


def load_weights(model, path):
    missing, unexpected = model.load_state_dict(load_file(str(path)), strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.lm_head.weight = model.model.embeddings.weight
    return model
