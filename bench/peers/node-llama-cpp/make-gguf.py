"""Writes a GGUF of the Llama architecture with random bfloat16 weights, of the size of linattn's default model (17.8 M
parameters, its width, depth and tokenizer of 8,192 entries).

    pip install -r requirements.txt
    python make-gguf.py ../../../models/default/tokenizer.json llama-17.8m.gguf
"""

import json
import sys

import gguf
import numpy as np

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_WIDTH, INNER, VOCABULARY = 8, 384, 6, 2, 64, 1248, 8192

tokenizer_file, out = sys.argv[1:]
with open(tokenizer_file, encoding="utf-8") as file:
    tokenizer = json.load(file)
ids = tokenizer["model"]["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
texts = {index: text for text, index in ids.items()}
special = {token["id"] for token in tokenizer["added_tokens"]}
tokens = [texts.get(index, f"<unused{index}>") for index in range(VOCABULARY)]
kinds = [
    gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL if i in texts else gguf.TokenType.UNUSED
    for i in range(VOCABULARY)
]
merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]

writer = gguf.GGUFWriter(out, "llama")
writer.add_context_length(131072)
writer.add_embedding_length(WIDTH)
writer.add_block_count(LAYERS)
writer.add_feed_forward_length(INNER)
writer.add_head_count(HEADS)
writer.add_head_count_kv(KV_HEADS)
writer.add_rope_dimension_count(HEAD_WIDTH)
writer.add_rope_freq_base(10000.0)
writer.add_layer_norm_rms_eps(1e-6)
writer.add_vocab_size(VOCABULARY)
writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("gpt-2")
writer.add_token_list(tokens)
writer.add_token_types(kinds)
writer.add_token_merges(merges)
writer.add_bos_token_id(0)
writer.add_eos_token_id(0)
writer.add_add_bos_token(False)

random = np.random.default_rng(1)
parameters = 0


def add(name: str, *shape: int) -> None:
    """A matrix in bfloat16, a vector of ones in float32."""
    global parameters
    parameters += int(np.prod(shape))
    if len(shape) == 1:
        writer.add_tensor(f"{name}.weight", np.ones(shape, np.float32))
        return
    values = random.normal(0, 0.02, shape).astype(np.float32)
    kind = gguf.GGMLQuantizationType.BF16
    writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)


add("token_embd", VOCABULARY, WIDTH)
add("output_norm", WIDTH)
for layer in range(LAYERS):
    add(f"blk.{layer}.attn_norm", WIDTH)
    add(f"blk.{layer}.attn_q", HEADS * HEAD_WIDTH, WIDTH)
    add(f"blk.{layer}.attn_k", KV_HEADS * HEAD_WIDTH, WIDTH)
    add(f"blk.{layer}.attn_v", KV_HEADS * HEAD_WIDTH, WIDTH)
    add(f"blk.{layer}.attn_output", WIDTH, HEADS * HEAD_WIDTH)
    add(f"blk.{layer}.ffn_norm", WIDTH)
    add(f"blk.{layer}.ffn_gate", INNER, WIDTH)
    add(f"blk.{layer}.ffn_up", INNER, WIDTH)
    add(f"blk.{layer}.ffn_down", WIDTH, INNER)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
print(f"{out}: {parameters} parameters")
