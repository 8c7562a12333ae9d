// Sizes of the Qwen3.5 family from config.json, which must say what qwen3-5.ts builds.
import { checkWidth } from '../../layers/layer';
import { bookkeeping, type Config } from '../config';
import { checkExperts, type ExpertSizes } from './experts';

export interface Sizes {
  hidden: number;
  /** Of the dense blocks; with experts of the shared one. */
  inner: number;
  experts: (ExpertSizes & { renormalise: boolean }) | undefined;
  /** Projections of a linear layer are stored key head by key head (Qwen3-Next). */
  byKeyHead: boolean;
  vocabulary: number;
  heads: number;
  kvHeads: number;
  width: number;
  rotary: number;
  theta: number;
  keyHeads: number;
  valueHeads: number;
  keyWidth: number;
  valueWidth: number;
  convTaps: number;
  eps: number;
  layers: ('linear_attention' | 'full_attention')[];
  tied: boolean;
}

/**
 * @param tiedOutside what the config around this one says of the embedding and the head
 * @throws LinattnError ERR_MODEL_UNSUPPORTED
 */
export function readSizes(config: Config, tiedOutside: boolean | undefined): Sizes {
  const size = (name: string, fallback?: number) => config.get('size', name, fallback);
  const type = config.get('string', 'model_type', '');
  const hidden = size('hidden_size');
  const experts = type.startsWith('qwen3_5_moe') || type === 'qwen3_next' ? readExperts(config, hidden) : undefined;
  config.only('hidden_act', 'silu');
  config.only('attention_bias', false);
  config.only('attn_output_gate', true);
  config.only('mamba_ssm_dtype', 'float32');
  config.ignore(...bookkeeping, 'max_position_embeddings', 'mtp_num_hidden_layers', 'mtp_use_dedicated_embeddings');
  config.ignore('eos_token_id', 'tie_word_embeddings', 'mlp_only_layers');
  const count = config.get('count', 'num_hidden_layers');
  const width = size('head_dim');
  const { theta, rotary } = readRope(config, width);
  const sizes: Sizes = {
    hidden,
    inner: size(experts === undefined ? 'intermediate_size' : 'shared_expert_intermediate_size'),
    experts,
    byKeyHead: type === 'qwen3_next',
    vocabulary: size('vocab_size'),
    heads: config.get('count', 'num_attention_heads'),
    kvHeads: config.get('count', 'num_key_value_heads'),
    width,
    rotary,
    theta,
    keyHeads: config.get('count', 'linear_num_key_heads'),
    valueHeads: config.get('count', 'linear_num_value_heads'),
    keyWidth: size('linear_key_head_dim'),
    valueWidth: size('linear_value_head_dim'),
    convTaps: size('linear_conv_kernel_dim'),
    eps: config.get('number', 'rms_norm_eps'),
    layers: readLayers(config, count),
    tied: tiedOutside ?? config.get('boolean', 'tie_word_embeddings', false),
  };
  config.finish();
  if (sizes.heads % sizes.kvHeads !== 0) {
    throw config.bad('num_key_value_heads', `a divisor of num_attention_heads = ${sizes.heads}`, sizes.kvHeads);
  }
  if (sizes.valueHeads % sizes.keyHeads !== 0) {
    throw config.bad(
      'linear_num_value_heads',
      `a multiple of linear_num_key_heads = ${sizes.keyHeads}`,
      sizes.valueHeads,
    );
  }
  checkWidth(config.where, 'linear_key_head_dim', sizes.keyWidth, 512);
  checkWidth(config.where, 'linear_value_head_dim', sizes.valueWidth, 512);
  checkWidth(config.where, 'head_dim', width, 512);
  return sizes;
}

function readExperts(config: Config, hidden: number): Sizes['experts'] {
  config.ignore('intermediate_size', 'output_router_logits', 'router_aux_loss_coef');
  config.only('decoder_sparse_step', 1);
  const dense = config.numbers('mlp_only_layers') ?? [];
  if (dense.length > 0) throw config.bad('mlp_only_layers', 'empty', dense);
  const sizes = {
    hidden,
    inner: config.get('size', 'moe_intermediate_size'),
    experts: config.get('count', 'num_experts'),
    chosen: config.get('size', 'num_experts_per_tok'),
    renormalise: config.get('boolean', 'norm_topk_prob', true),
  };
  checkExperts(config, sizes, { inner: 'moe_intermediate_size', chosen: 'num_experts_per_tok' });
  return sizes;
}

function readRope(config: Config, width: number): { theta: number; rotary: number } {
  const rope = config.object('rope_parameters') ?? config;
  rope.only('rope_type', 'default');
  rope.ignore('mrope_section', 'mrope_interleaved'); // equal position ids for text: plain RoPE
  const outer = config.get('number', 'partial_rotary_factor', 0.25);
  const factor = rope.get('number', 'partial_rotary_factor', outer);
  const theta = rope.get('number', 'rope_theta');
  if (rope !== config) rope.finish();
  const rotary = Math.floor(width * factor);
  if (rotary % 2 !== 0 || rotary < 2 || rotary > width) {
    throw config.bad('partial_rotary_factor', `such that an even number of ${width} dimensions turns`, factor);
  }
  return { theta, rotary };
}

function readLayers(config: Config, count: number): Sizes['layers'] {
  const interval = config.get('size', 'full_attention_interval', 4);
  const types = config.raw('layer_types') as unknown[] | undefined;
  if (types === undefined) {
    return Array.from({ length: count }, (_, i) => ((i + 1) % interval === 0 ? 'full_attention' : 'linear_attention'));
  }
  const known = (type: unknown) => type === 'linear_attention' || type === 'full_attention';
  if (!Array.isArray(types) || types.length !== count || !types.every(known)) {
    throw config.bad('layer_types', `${count} of "linear_attention" and "full_attention"`, types);
  }
  return types as Sizes['layers'];
}
