// MiniMax-Text-01 (456B): lightning attention and a softmax layer in eight, experts after each; residuals start behind the
// norms. Layout: transformers models/minimax/modeling_minimax.py.
import { checkWidth, KvLayout, type Layer, StateLayout } from '../../layers/layer';
import { LightningAttention } from '../../layers/lightning-attention';
import { lightningDecays } from '../../layers/lightning-decay';
import { MixtureOfExperts } from '../../layers/mixture-of-experts';
import { Tensor } from '../../tensor/tensor';
import { bookkeeping, type Config } from '../config';
import { type Branch, LanguageModel } from '../language-model';
import type { RowRange, WeightSource } from '../weights';
import { checkExperts, type ExpertSizes, separateExperts } from './experts';
import type { Family, Plan } from './family';
import { embeddingAndHead, readTheta, softmaxLayer, vector } from './parts';

// transformers makes the norm of lightning attention with the default eps, whatever the config says.
const lightningNormEps = 1e-6;

interface Residual {
  input: number;
  branch: number;
}

interface Sizes {
  hidden: number;
  vocabulary: number;
  eps: number;
  tied: boolean;
  heads: number;
  kvHeads: number;
  width: number;
  window: number;
  theta: number;
  layers: ('full_attention' | 'linear_attention')[];
  residuals: Record<'full_attention' | 'linear_attention' | 'mlp', Residual>;
  experts: ExpertSizes;
}

function readSizes(config: Config): Sizes {
  const size = (name: string, fallback?: number) => config.get('size', name, fallback);
  const factor = (name: string): Residual => ({
    input: config.get('number', `${name}_alpha_factor`, 1),
    branch: config.get('number', `${name}_beta_factor`, 1),
  });
  config.only('hidden_act', 'silu');
  config.ignore(...bookkeeping, 'eos_token_id', 'max_position_embeddings', 'block_size', 'output_router_logits');
  config.ignore('router_aux_loss_coef', 'router_jitter_noise');
  const hidden = size('hidden_size');
  const heads = config.get('count', 'num_attention_heads');
  const sizes: Sizes = {
    hidden,
    vocabulary: size('vocab_size'),
    eps: config.get('number', 'rms_norm_eps', 1e-5),
    tied: config.get('boolean', 'tie_word_embeddings', false),
    heads,
    kvHeads: config.get('count', 'num_key_value_heads', heads),
    width: size('head_dim', hidden / heads),
    window: config.raw('sliding_window') === undefined ? 0 : size('sliding_window'),
    theta: readTheta(config, 1e6),
    layers: readLayers(config),
    residuals: {
      full_attention: factor('full_attn'),
      linear_attention: factor('linear_attn'),
      mlp: factor('mlp'),
    },
    experts: {
      hidden,
      inner: size('intermediate_size'),
      experts: config.get('count', 'num_local_experts', 8),
      chosen: size('num_experts_per_tok', 2),
    },
  };
  config.finish();
  if (heads % sizes.kvHeads !== 0) {
    throw config.bad('num_key_value_heads', `a divisor of num_attention_heads = ${heads}`, sizes.kvHeads);
  }
  checkWidth(config.where, 'head_dim', sizes.width, 512);
  checkExperts(config, sizes.experts, { inner: 'intermediate_size', chosen: 'num_experts_per_tok' });
  return sizes;
}

function readLayers(config: Config): Sizes['layers'] {
  const count = config.get('count', 'num_hidden_layers');
  const kinds = ['full_attention', 'linear_attention'] as const;
  const types = config.raw('layer_types') ?? Array.from({ length: count }, (_, i) => kinds[i % 2]);
  const known = Array.isArray(types) && types.length === count && types.every((type) => kinds.includes(type));
  if (!known) throw config.bad('layer_types', `${count} of "full_attention" and "linear_attention"`, types);
  return types as Sizes['layers'];
}

async function lightning(
  source: WeightSource,
  { hidden, heads, width, layers }: Sizes,
  index: number,
  name: string,
  state: StateLayout,
): Promise<Layer> {
  const size = heads * width;
  // qkv_proj holds the rows of q, k and v of the first head, then of the next.
  const part = (i: number): RowRange[] => Array.from({ length: heads }, (_, h) => [(3 * h + i) * width, width]);
  const qkv = { name: `${name}qkv_proj.weight`, out: 3 * size };
  const rows = [0, 1, 2].map((i) => ({ ...qkv, rows: part(i) }));
  const decays = lightningDecays('minimax', { heads, layer: index, layers: layers.length });
  const weights = {
    input: await source.linear([...rows, { name: `${name}output_gate.weight`, out: size }], hidden),
    output: await source.linear([{ name: `${name}out_proj.weight`, out: hidden }], size),
    norm: await vector(source, `${name}norm.weight`, size),
    decay: source.own((device) => Tensor.from(decays, { dtype: 'float32', shape: [heads], device })),
  };
  return new LightningAttention({ heads, width, normEps: lightningNormEps }, weights, state, name);
}

async function experts(source: WeightSource, { hidden, experts: sizes }: Sizes, name: string): Promise<Layer> {
  const router = await source.linear([{ name: `${name}gate.weight`, out: sizes.experts }], hidden);
  const names = { gate: 'w1', up: 'w3', down: 'w2' };
  const weights = { router, ...(await separateExperts(source, sizes, `${name}experts.`, names)) };
  return new MixtureOfExperts(weights, sizes.experts, { count: sizes.chosen, score: 'softmax', renormalise: true });
}

async function build(source: WeightSource, sizes: Sizes, where: Config): Promise<LanguageModel> {
  const { hidden, residuals } = sizes;
  const state = new StateLayout();
  const kv = new KvLayout();
  const ends = await embeddingAndHead(source, where, { ...sizes, embedding: 'model.embed_tokens.weight' });
  const branches: Branch[] = [];
  for (const [i, type] of sizes.layers.entries()) {
    const layer = `model.layers.${i}.`;
    const name = `${layer}self_attn.`;
    const mixerNorm = await vector(source, `${layer}input_layernorm.weight`, hidden);
    const mixer =
      type === 'linear_attention'
        ? await lightning(source, sizes, i, name, state)
        : await softmaxLayer(source, sizes, { normEps: sizes.eps }, name, kv);
    const norm = await vector(source, `${layer}post_attention_layernorm.weight`, hidden);
    const block = await experts(source, sizes, `${layer}block_sparse_moe.`);
    branches.push({ norm: mixerNorm, layer: mixer, afterNorm: residuals[type] });
    branches.push({ norm, layer: block, afterNorm: residuals.mlp });
  }
  const norm = await vector(source, 'model.norm.weight', hidden);
  const kind = { activations: source.activations, normEps: sizes.eps, zeroCentred: false };
  return new LanguageModel({ ...ends, branches, norm, ...kind, state, kv });
}

export const minimax: Family = {
  modelTypes: ['minimax'],
  read(config: Config): Plan {
    const stopIds = config.numbers('eos_token_id') ?? [2];
    const contextLength = config.get('size', 'max_position_embeddings', 131072);
    const sizes = readSizes(config);
    return {
      family: 'minimax',
      stopIds,
      contextLength,
      // What the decays are computed to is stored as well.
      ignored: /\.self_attn\.(slope_rate|query_decay|key_decay|diagonal_decay)$/,
      build: (source) => build(source, sizes, config),
    };
  },
};
