// Writes a checkpoint at the exact shapes of Qwen3.5-0.8B (text part, bfloat16, 1.5 GB) with random weights, in the
// layout that people download: multimodal config and prefix, a shard with its index, a tokenizer of 248,320 entries.
//
//   node bench/make-qwen3.5-0.8b.mjs [--out .cache/qwen3.5-0.8b] [--seed 1]
//
// The weights say nothing, but activations stay in range and decays are spread as after initialisation. The tokenizer
// knows the 256 bytes and nothing longer: text costs one token a byte.

import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: { out: { type: 'string', default: '.cache/qwen3.5-0.8b' }, seed: { type: 'string', default: '1' } },
});
const out = values.out;
const started = performance.now();

const text = {
  attention_bias: false,
  attention_dropout: 0.0,
  attn_output_gate: true,
  dtype: 'bfloat16',
  eos_token_id: 248044,
  full_attention_interval: 4,
  head_dim: 256,
  hidden_act: 'silu',
  hidden_size: 1024,
  initializer_range: 0.02,
  intermediate_size: 3584,
  layer_types: Array.from({ length: 24 }, (_, i) => ((i + 1) % 4 === 0 ? 'full_attention' : 'linear_attention')),
  linear_conv_kernel_dim: 4,
  linear_key_head_dim: 128,
  linear_num_key_heads: 16,
  linear_num_value_heads: 16,
  linear_value_head_dim: 128,
  mamba_ssm_dtype: 'float32',
  max_position_embeddings: 262144,
  model_type: 'qwen3_5_text',
  mtp_num_hidden_layers: 1,
  mtp_use_dedicated_embeddings: false,
  num_attention_heads: 8,
  num_hidden_layers: 24,
  num_key_value_heads: 2,
  rms_norm_eps: 1e-6,
  rope_parameters: {
    mrope_interleaved: true,
    mrope_section: [11, 11, 10],
    partial_rotary_factor: 0.25,
    rope_theta: 10000000,
    rope_type: 'default',
  },
  tie_word_embeddings: true,
  use_cache: true,
  vocab_size: 248320,
};
const config = {
  architectures: ['Qwen3_5ForConditionalGeneration'],
  image_token_id: 248056,
  model_type: 'qwen3_5',
  text_config: text,
  tie_word_embeddings: true,
  video_token_id: 248057,
  vision_end_token_id: 248054,
  vision_start_token_id: 248053,
};

// Uniform 32-bit integers; the seed must not be 0.
let state = Number(values.seed) | 0 || 1;
function next() {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return state >>> 0;
}
const uniform = () => (next() + 0.5) / 2 ** 32;
const normal = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);
function bfloat16(x) {
  float[0] = x;
  return (bits[0] + 0x7fff + ((bits[0] >>> 16) & 1)) >>> 16;
}

// A fill writes count elements at index from of a Uint16Array of bfloat16.
const each = (value) => (target, from, count) => {
  for (let i = from; i < from + count; i++) target[i] = bfloat16(value());
};
/** mean + deviation times one of 65,536 normal values, two draws from each random integer. */
function fromTable(deviation, mean = 0) {
  const table = Uint16Array.from({ length: 65536 }, () => bfloat16(mean + deviation * normal()));
  return (target, from, count) => {
    let s = state;
    for (let i = from; i + 1 < from + count; i += 2) {
      s ^= s << 13;
      s ^= s >>> 17;
      s ^= s << 5;
      target[i] = table[s & 0xffff];
      target[i + 1] = table[s >>> 16];
    }
    state = s;
    if (count % 2 === 1) target[from + count - 1] = table[next() & 0xffff];
  };
}

const { hidden_size: hidden, intermediate_size: inner, head_dim: head, linear_conv_kernel_dim: kernel } = text;
const keyWidth = text.linear_num_key_heads * text.linear_key_head_dim;
const valueWidth = text.linear_num_value_heads * text.linear_value_head_dim;
const queryWidth = text.num_attention_heads * head;
const kvWidth = text.num_key_value_heads * head;

const embedding = fromTable(0.02);
const fromHidden = fromTable(hidden ** -0.5);
const fromInner = fromTable(0.5 * inner ** -0.5);
const fromHeads = fromTable(0.5 * valueWidth ** -0.5); // valueWidth = queryWidth
const convolution = fromTable(0.5);
const zeroCentred = fromTable(0.02); // the model multiplies by 1 + w
const aroundOne = fromTable(0.02, 1);
const aLog = each(() => Math.log(1 + 15 * uniform()));
/** softplus^-1 of a step that is log-uniform in [0.001, 0.1], as fla and Mamba-2 initialise it. */
const dtBias = each(() => {
  const step = Math.exp(Math.log(0.001) + uniform() * Math.log(100));
  return step + Math.log(-Math.expm1(-step));
});

/** @type {[name: string, shape: number[], fill: (target: Uint16Array, from: number, count: number) => void][]} */
const tensors = [['embed_tokens.weight', [text.vocab_size, hidden], embedding]];
for (const [i, type] of text.layer_types.entries()) {
  const add = (name, shape, fill) => tensors.push([`layers.${i}.${name}`, shape, fill]);
  add('input_layernorm.weight', [hidden], zeroCentred);
  if (type === 'linear_attention') {
    add('linear_attn.in_proj_qkv.weight', [2 * keyWidth + valueWidth, hidden], fromHidden);
    add('linear_attn.in_proj_z.weight', [valueWidth, hidden], fromHidden);
    add('linear_attn.in_proj_b.weight', [text.linear_num_value_heads, hidden], fromHidden);
    add('linear_attn.in_proj_a.weight', [text.linear_num_value_heads, hidden], fromHidden);
    add('linear_attn.conv1d.weight', [2 * keyWidth + valueWidth, 1, kernel], convolution);
    add('linear_attn.dt_bias', [text.linear_num_value_heads], dtBias);
    add('linear_attn.A_log', [text.linear_num_value_heads], aLog);
    add('linear_attn.norm.weight', [text.linear_value_head_dim], aroundOne);
    add('linear_attn.out_proj.weight', [hidden, valueWidth], fromHeads);
  } else {
    add('self_attn.q_proj.weight', [2 * queryWidth, hidden], fromHidden);
    add('self_attn.k_proj.weight', [kvWidth, hidden], fromHidden);
    add('self_attn.v_proj.weight', [kvWidth, hidden], fromHidden);
    add('self_attn.o_proj.weight', [hidden, queryWidth], fromHeads);
    add('self_attn.q_norm.weight', [head], zeroCentred);
    add('self_attn.k_norm.weight', [head], zeroCentred);
  }
  add('post_attention_layernorm.weight', [hidden], zeroCentred);
  add('mlp.gate_proj.weight', [inner, hidden], fromHidden);
  add('mlp.up_proj.weight', [inner, hidden], fromHidden);
  add('mlp.down_proj.weight', [hidden, inner], fromInner);
}
tensors.push(['norm.weight', [hidden], zeroCentred]);

const size = (shape) => shape.reduce((product, n) => product * n, 1);
const parameters = tensors.reduce((sum, [, shape]) => sum + size(shape), 0);
if (parameters !== 752_393_024) throw new Error(`${parameters} parameters, want 752393024`);

mkdirSync(out, { recursive: true });
const write = (name, value, indent = 2) => writeFileSync(join(out, name), `${JSON.stringify(value, null, indent)}\n`);
write('config.json', config);
write('generation_config.json', { eos_token_id: [248046, 248044], pad_token_id: 248044 });
writeTokenizer();

const shard = 'model-00001-of-00001.safetensors';
const header = { __metadata__: { format: 'pt' } };
let offset = 0;
for (const [name, shape] of tensors) {
  const end = offset + 2 * size(shape);
  header[`model.language_model.${name}`] = { dtype: 'BF16', shape, data_offsets: [offset, end] };
  offset = end;
}
const names = Object.keys(header).slice(1);
write('model.safetensors.index.json', {
  metadata: { total_size: offset },
  weight_map: Object.fromEntries(names.map((name) => [name, shard])),
});

const json = Buffer.from(JSON.stringify(header));
const padded = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, ' ');
padded.writeBigUInt64LE(BigInt(padded.length - 8));
json.copy(padded, 8);
const file = openSync(join(out, shard), 'w');
writeSync(file, padded);
const block = new Uint16Array(8 << 20);
for (const [, shape, fill] of tensors) {
  for (let left = size(shape); left > 0; left -= block.length) {
    const count = Math.min(left, block.length);
    fill(block, 0, count);
    for (let done = 0; done < 2 * count; ) done += writeSync(file, block, done, 2 * count - done);
  }
}
closeSync(file);
const seconds = (performance.now() - started) / 1000;
console.log(
  `${out}: ${parameters.toLocaleString('en')} parameters, ${(offset / 1e9).toFixed(2)} GB in ${seconds.toFixed(1)} s`,
);

/** Byte-level BPE without merges: 256 byte tokens, fillers that only decode, and special tokens at Qwen's ids. */
function writeTokenizer() {
  // GPT-2's printable stand-ins: printable Latin-1 bytes stand for themselves, the others for U+0100 onwards.
  const printable = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let shifted = 0;
  const vocab = {};
  for (let byte = 0; byte < 256; byte++) vocab[String.fromCodePoint(printable(byte) ? byte : 256 + shifted++)] = byte;
  for (let id = 256; id < text.eos_token_id; id++) vocab[`\u0120w${id}`] = id;
  const special = ['<|endoftext|>', '<|im_start|>', '<|im_end|>'];
  // The rows after the released tokenizer's last id get names too: a random model does choose them.
  const added = Array.from({ length: text.vocab_size - text.eos_token_id }, (_, i) => ({
    id: text.eos_token_id + i,
    content: special[i] ?? `<|unused_${i}|>`,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }));
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false };
  // The word pattern of Qwen3.5's tokenizer.json.
  const pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" +
    '|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
  const split = { type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false };
  const words = { type: 'Sequence', pretokenizers: [split, byteLevel] };
  const model = {
    type: 'BPE',
    dropout: null,
    unk_token: null,
    fuse_unk: false,
    byte_fallback: false,
    vocab,
    merges: [],
  };
  const tokenizer = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: { type: 'NFC' },
  };
  // One line: a quarter of a million entries.
  write('tokenizer.json', { ...tokenizer, pre_tokenizer: words, post_processor: null, decoder: byteLevel, model }, 0);
  write('tokenizer_config.json', {
    bos_token: null,
    chat_template:
      "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}" +
      "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
    clean_up_tokenization_spaces: false,
    eos_token: '<|im_end|>',
    model_max_length: text.max_position_embeddings,
    pad_token: '<|endoftext|>',
    tokenizer_class: 'PreTrainedTokenizerFast',
  });
}
