// Configs are read field by field: what is not understood is refused by name.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Config, type JsonObject } from '../../lib/model/config';
import { familyOf } from '../../lib/model/families';

const golden = (name: string): JsonObject =>
  JSON.parse(readFileSync(path.join(__dirname, '../golden', name, 'config.json'), 'utf8'));
const read = (fields: JsonObject) => {
  const config = new Config('config.json', fields);
  return familyOf(config).read(config);
};
const refusal = (fields: JsonObject): { code?: string; message?: string } => {
  try {
    read(fields);
  } catch (error) {
    return error as Error;
  }
  return {};
};

describe.each([
  'qwen3_5/tied',
  'qwen3_5/multimodal',
  'gated_deltanet/hybrid',
  'gated_deltanet/ungated',
  'mamba2/tied',
  'retnet/gated',
  'gla/plain',
  'delta_net/plain',
  'kda/bounded',
  'gsa/plain',
  'hgrn2/bounded',
  'minimax/scaled',
  'rwkv7/author',
  'xlstm/fused',
  'qwen3_next/experts',
  'qwen3_5_moe/experts',
  'granitemoehybrid/experts',
])('%s', (name) => {
  test('is read', () => {
    const plan = read(golden(name));
    expect(name).toContain(plan.family);
    expect(plan.stopIds.length).toBeGreaterThan(0);
  });

  test.each([
    ['an unknown field', { new_gate_kind: 'x' }, /unknown fields: new_gate_kind/],
    ['an unknown family', { model_type: 'retnet2' }, /model_type "retnet2" is not one of/],
    ['no family', { model_type: undefined }, /model_type must be a string, got nothing/],
  ])('with %s is refused', (_, change, message) => {
    expect(refusal({ ...golden(name), ...change })).toMatchObject({
      code: 'ERR_MODEL_UNSUPPORTED',
      message: expect.stringMatching(message),
    });
  });
});

/** Numbers of a config, in nested objects too, that say how many parts a model has. */
const countsOf = (fields: JsonObject, path: string[] = []): string[][] =>
  Object.entries(fields).flatMap(([name, value]) => {
    if (typeof value === 'object' && value !== null && !Array.isArray(value))
      return countsOf(value as JsonObject, [...path, name]);
    return /^num_(hidden_layers|.*heads|.*experts)$|_n_heads$/.test(name) && value !== null ? [[...path, name]] : [];
  });

function changed(fields: JsonObject, path: readonly string[], value: unknown): JsonObject {
  const [name, ...rest] = path as [string, ...string[]];
  return { ...fields, [name]: rest.length === 0 ? value : changed(fields[name] as JsonObject, rest, value) };
}

test.each(['gsa/plain', 'kda/plain', 'minimax/plain', 'qwen3_5/tied', 'qwen3_next/experts', 'xlstm/fused'])(
  'a billion parts are refused before there is an object for each of them: %s',
  (name) => {
    const paths = countsOf(golden(name));
    expect(paths.length).toBeGreaterThan(1);
    for (const path of paths) {
      expect(refusal(changed(golden(name), path, 1e9))).toMatchObject({
        code: 'ERR_MODEL_UNSUPPORTED',
        message: expect.stringContaining(path.at(-1)!),
      });
    }
  },
);

test.each<[string, JsonObject, RegExp]>([
  ['qwen3_5/tied', { num_hidden_layers: 0 }, /num_hidden_layers must be a whole number from 1 to 4096, got 0/],
  ['qwen3_5/tied', { layer_types: ['linear_attention'] }, /layer_types must be 4 of/],
  ['qwen3_5/tied', { num_key_value_heads: 3 }, /num_key_value_heads must be a divisor of num_attention_heads = 4/],
  ['qwen3_5/tied', { linear_num_value_heads: 6 }, /linear_num_value_heads must be a multiple/],
  ['qwen3_5/tied', { linear_key_head_dim: 12 }, /linear_key_head_dim must be a multiple of 8/],
  ['qwen3_5/tied', { attn_output_gate: false }, /attn_output_gate must be true, got false/],
  ['qwen3_5/tied', { hidden_act: 'gelu' }, /hidden_act must be "silu", got "gelu"/],
  [
    'qwen3_5/tied',
    { rope_parameters: { rope_type: 'yarn', rope_theta: 1e7 } },
    /rope_type must be "default", got "yarn"/,
  ],
  ['qwen3_5/tied', { rope_parameters: { rope_theta: 1e7, partial_rotary_factor: 0.03 } }, /partial_rotary_factor/],
  ['mamba2/grouped', { n_groups: 3 }, /n_groups must be a divisor of the 4 heads, got 3/],
  ['mamba2/grouped', { head_dim: 12 }, /expand must be 4 x 12 \/ hidden_size, got 2/],
  ['mamba2/grouped', { time_step_limit: [1] }, /time_step_limit must be two numbers, the smaller one first/],
  ['retnet/gated', { num_kv_heads: 2 }, /num_kv_heads must be num_heads = 4, got 2/],
  ['retnet/gated', { use_short_conv: true }, /use_short_conv must be false, got true/],
  ['gla/plain', { clamp_min: -1 }, /clamp_min must be absent, got -1/],
  ['gla/plain', { feature_map: 'relu' }, /feature_map must be absent, got "relu"/],
  ['gla/plain', { expand_k: 0.3 }, /hidden_size x expand_k \/ num_heads must be a multiple of 8/],
  ['rwkv7/fla', { num_heads: 2 }, /num_heads must be 1, got 2/],
  ['rwkv7/fla', { norm_bias: false }, /norm_bias must be true, got false/],
  ['rwkv7/fla', { value_dim: [64, 128, 64] }, /value_dim must be hidden_size = 64 everywhere/],
  ['kda/bounded', { safe_gate: false }, /safe_gate must be true, got false/],
  ['kda/bounded', { lower_bound: 1 }, /lower_bound must be below 0, got 1/],
  ['hgrn2/bounded', { expand_ratio: 32 }, /expand_ratio must be hidden_size \/ num_heads = 16, got 32/],
  ['gsa/plain', { clamp_min: -1 }, /clamp_min must be absent, got -1/],
  ['gsa/plain', { feature_map: 't2r' }, /feature_map must be swish or relu, got "t2r"/],
  ['gsa/plain', { num_slots: 12 }, /num_slots must be a multiple of 8/],
  ['gsa/plain', { expand_v: 2 }, /expand_v must be 1, got 2/],
  ['minimax/scaled', { layer_types: ['mamba'] }, /layer_types must be 4 of "full_attention" and "linear_attention"/],
  ['minimax/scaled', { num_key_value_heads: 3 }, /num_key_value_heads must be a divisor of num_attention_heads = 4/],
  ['minimax/scaled', { rope_parameters: { rope_type: 'yarn' } }, /rope_type must be "default", got "yarn"/],
  ['minimax/scaled', { num_experts_per_tok: 9 }, /num_experts_per_tok must be at most the 6 experts, got 9/],
  ['qwen3_next/experts', { decoder_sparse_step: 2 }, /decoder_sparse_step must be 1, got 2/],
  ['qwen3_next/experts', { mlp_only_layers: [0] }, /mlp_only_layers must be empty, got \[0\]/],
  ['qwen3_next/experts', { num_experts_per_tok: 9 }, /num_experts_per_tok must be at most the 8 experts, got 9/],
  ['qwen3_5_moe/experts', { moe_intermediate_size: 40 }, /moe_intermediate_size must be a multiple of 32, got 40/],
  [
    'granitemoehybrid/experts',
    { position_embedding_type: 'alibi' },
    /position_embedding_type must be "nope" or "rope"/,
  ],
  ['granitemoehybrid/experts', { layer_types: ['mamba'] }, /layer_types must be 4 of "mamba" and "attention"/],
  ['granitemoehybrid/experts', { rope_scaling: { type: 'yarn' } }, /rope_scaling must be absent/],
  ['granitemoehybrid/dense', { attention_bias: true }, /attention_bias must be false, got true/],
  ['xlstm/single', { use_bias: true }, /use_bias must be false, got true/],
  ['xlstm/single', { num_blocks: 4 }, /num_blocks must be 3, got 4/],
  ['xlstm/single', { qk_dim_factor: 0.6 }, /hidden_size x qk_dim_factor \/ num_heads must be a multiple of 8/],
  ['xlstm/single', { weight_mode: 'split' }, /weight_mode must be "single" or "fused", got "split"/],
  ['xlstm/single', { gate_soft_cap: 0 }, /gate_soft_cap must be more than 0, got 0/],
  ['xlstm/single', { add_post_norm: true }, /add_post_norm must be false, got true/],
  ['delta_net/plain', { qk_norm: 'sum' }, /qk_norm must be "l2", got "sum"/],
  ['gated_deltanet/hybrid', { hidden_act: 'relu' }, /hidden_act must be "swish" or "silu"/],
  ['gated_deltanet/hybrid', { attnres_block_size: 4 }, /attnres_block_size must be absent/],
  ['gated_deltanet/hybrid', { attn: { layers: [1], num_heads: 4, dilation: 2 } }, /attn: unknown fields: dilation/],
  ['gated_deltanet/hybrid', { attn: { num_heads: 4 } }, /attn: layers must be a list/],
])('%s with %j is refused by name', (name, change, message) => {
  expect(refusal({ ...golden(name), ...change })).toMatchObject({
    code: 'ERR_MODEL_UNSUPPORTED',
    message: expect.stringMatching(message),
  });
});

test('the config that xLSTM-7B was published with is read', () => {
  const fields = {
    add_embedding_dropout: false,
    add_forward_backend_padding: false,
    add_out_norm: true,
    add_post_blocks_norm: true,
    add_post_norm: false,
    add_qk_norm: false,
    architectures: ['xLSTMForCausalLM'],
    bos_token_id: 0,
    cell_norm_eps: 1e-6,
    embedding_dim: 4096,
    eos_token_id: 2,
    ffn_proj_factor: 2.667,
    ffn_round_up_to_multiple_of: 64,
    force_bos_token_insert: true,
    forward_backend_name: 'chunkwise--triton_limit_chunk',
    gate_soft_cap: 15,
    head_dim: 512,
    igate_bias_init_range: -10,
    mlstm_round_up_to_multiple_of: 64,
    model_type: 'xlstm',
    norm_eps: 1e-6,
    norm_reduction_force_float32: true,
    num_blocks: 32,
    num_heads: 8,
    output_logit_soft_cap: 30,
    pad_token_id: 1,
    qk_dim_factor: 0.5,
    return_last_states: true,
    step_backend_name: 'triton_fused',
    tie_word_embeddings: false,
    torch_dtype: 'float32',
    transformers_version: '4.47.0.dev0',
    use_bias: false,
    use_cache: true,
    v_dim_factor: 1,
    vocab_size: 50304,
  };
  expect(read(fields)).toMatchObject({ family: 'xlstm', stopIds: [2] });
});

describe('a folder', () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'linattn-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  test('whose config.json has an infinite number, as Python writes it, is read', async () => {
    writeFileSync(path.join(folder, 'config.json'), '{"time_step_limit": [0.0, Infinity], "text": "a: Infinity"}');
    const config = await Config.read(folder);
    expect(config.range('time_step_limit', [1, 2])).toEqual([0, Infinity]);
    rmSync(path.join(folder, 'config.json'));
  });

  test.each([
    ['without config.json', undefined, 'ERR_FILE'],
    ['whose config.json is not JSON', '{', 'ERR_MODEL_UNSUPPORTED'],
    ['whose config.json is a list', '[]', 'ERR_MODEL_UNSUPPORTED'],
  ])('%s is refused', async (_, content, code) => {
    if (content !== undefined) writeFileSync(path.join(folder, 'config.json'), content);
    await expect(Config.read(folder)).rejects.toMatchObject({ code, message: expect.stringContaining('config.json') });
  });
});
