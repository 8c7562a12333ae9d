// Granite 4.0 H: Mamba-2 and a few softmax layers, a gated block after each, experts beside it in the larger ones, and
// multipliers everywhere. Layout: transformers models/granitemoehybrid/modeling_granitemoehybrid.py.
import { checkWidth, KvLayout, type Layer, StateLayout } from '../../layers/layer';
import { MixtureOfExperts } from '../../layers/mixture-of-experts';
import { GatedMlp } from '../../layers/mlp';
import { bookkeeping, type Config } from '../config';
import { type Branch, LanguageModel } from '../language-model';
import type { WeightSource } from '../weights';
import { checkExperts, type ExpertSizes, stackedExperts } from './experts';
import type { Family, Plan } from './family';
import { checkMixer, type Mamba2Mixer, mamba2Mixer } from './mamba2';
import { embeddingAndHead, readTheta, softmaxLayer, vector } from './parts';

interface Sizes {
  hidden: number;
  /** Of the block that every token goes through. */
  inner: number;
  vocabulary: number;
  eps: number;
  tied: boolean;
  heads: number;
  kvHeads: number;
  width: number;
  /** Of RoPE; undefined: no positions. */
  theta: number | undefined;
  layers: ('mamba' | 'attention')[];
  multipliers: { embedding: number; branch: number; scores: number; logits: number };
  mixer: Mamba2Mixer;
  experts: ExpertSizes | undefined;
}

// Names of layer types before and since transformers 5.
const kinds: Readonly<Record<string, 'mamba' | 'attention'>> = {
  mamba: 'mamba',
  linear_attention: 'mamba',
  attention: 'attention',
  full_attention: 'attention',
};

function readSizes(config: Config): Sizes {
  const size = (name: string, fallback?: number) => config.get('size', name, fallback);
  const number = (name: string, fallback: number) => config.get('number', name, fallback);
  config.only('hidden_act', 'silu');
  config.only('attention_bias', false);
  config.only('normalization_function', 'rmsnorm');
  config.ignore(...bookkeeping, 'eos_token_id', 'max_position_embeddings', 'mamba_chunk_size', 'init_method');
  config.ignore('output_router_logits', 'router_aux_loss_coef', 'rope_parameters', 'rope_theta', 'rope_scaling');
  const hidden = size('hidden_size');
  const heads = config.get('count', 'num_attention_heads');
  const eps = number('rms_norm_eps', 1e-6);
  const sizes: Sizes = {
    hidden,
    inner: size('shared_intermediate_size', 1024),
    vocabulary: size('vocab_size'),
    eps,
    tied: config.get('boolean', 'tie_word_embeddings', false),
    heads,
    kvHeads: config.get('count', 'num_key_value_heads', heads),
    width: size('head_dim', hidden / heads),
    theta: config.only('position_embedding_type', 'nope', 'rope') === 'rope' ? readTheta(config, 10000) : undefined,
    layers: readLayers(config),
    multipliers: {
      embedding: number('embedding_multiplier', 1),
      branch: number('residual_multiplier', 1),
      scores: number('attention_multiplier', 1),
      logits: 1 / number('logits_scaling', 1),
    },
    mixer: readMixer(config, hidden, eps),
    experts: readExperts(config, hidden),
  };
  config.finish();
  if (heads % sizes.kvHeads !== 0) {
    throw config.bad('num_key_value_heads', `a divisor of num_attention_heads = ${heads}`, sizes.kvHeads);
  }
  checkWidth(config.where, 'hidden_size / num_attention_heads', sizes.width, 512);
  return sizes;
}

function readLayers(config: Config): Sizes['layers'] {
  const count = config.get('count', 'num_hidden_layers');
  const types = config.raw('layer_types') ?? Array.from({ length: count }, () => 'mamba');
  const known = Array.isArray(types) && types.length === count && types.every((type) => Object.hasOwn(kinds, type));
  if (!known) throw config.bad('layer_types', `${count} of "mamba" and "attention"`, types);
  return (types as string[]).map((type) => kinds[type]!);
}

function readMixer(config: Config, hidden: number, eps: number): Mamba2Mixer {
  const heads = config.get('count', 'mamba_n_heads', 128);
  const inner = config.get('number', 'mamba_expand', 2) * hidden;
  const width =
    config.raw('mamba_d_head') === 'auto' ? inner / heads : config.get('size', 'mamba_d_head', inner / heads);
  const mixer: Mamba2Mixer = {
    hidden,
    heads,
    headWidth: width,
    groups: config.get('size', 'mamba_n_groups', 1),
    stateWidth: config.get('size', 'mamba_d_state', 256),
    convTaps: config.get('size', 'mamba_d_conv', 4),
    bias: config.get('boolean', 'mamba_proj_bias', false),
    convBias: config.get('boolean', 'mamba_conv_bias', true),
    normEps: eps,
    stepLimits: config.range('time_step_limit', [0, Number.POSITIVE_INFINITY]),
  };
  if (inner !== heads * width) throw config.bad('mamba_expand', `${heads} x ${width} / hidden_size`, inner / hidden);
  checkMixer(config, mixer, {
    groups: 'mamba_n_groups',
    taps: 'mamba_d_conv',
    head: 'mamba_d_head',
    state: 'mamba_d_state',
  });
  return mixer;
}

function readExperts(config: Config, hidden: number): ExpertSizes | undefined {
  config.ignore('num_experts_per_tok', 'intermediate_size');
  if (config.get('number', 'num_local_experts', 8) === 0) return undefined;
  const sizes = {
    hidden,
    inner: config.get('size', 'intermediate_size'),
    experts: config.get('count', 'num_local_experts', 8),
    chosen: config.get('size', 'num_experts_per_tok', 2),
  };
  checkExperts(config, sizes, { inner: 'intermediate_size', chosen: 'num_experts_per_tok' });
  return sizes;
}

async function feedForward(source: WeightSource, sizes: Sizes, layer: string): Promise<Layer> {
  const { hidden, inner, experts } = sizes;
  const name = `${layer}shared_mlp.`;
  const gateUp = await source.linear([{ name: `${name}input_linear.weight`, out: 2 * inner }], hidden);
  const shared = new GatedMlp(
    gateUp,
    await source.linear([{ name: `${name}output_linear.weight`, out: hidden }], inner),
  );
  if (experts === undefined) return shared;
  const moe = `${layer}block_sparse_moe.`;
  const names = { gateUp: `${moe}input_linear.weight`, down: `${moe}output_linear.weight` };
  const router = await source.linear([{ name: `${moe}router.layer.weight`, out: experts.experts }], hidden);
  const weights = { router, ...(await stackedExperts(source, experts, names)), shared };
  // The softmax over the chosen logits alone is that over all, renormalised.
  const options = { count: experts.chosen, score: 'softmax', renormalise: true } as const;
  return new MixtureOfExperts(weights, experts.experts, options);
}

async function build(source: WeightSource, sizes: Sizes, where: Config): Promise<LanguageModel> {
  const { hidden, multipliers } = sizes;
  const state = new StateLayout();
  const kv = new KvLayout();
  const ends = await embeddingAndHead(source, where, { ...sizes, embedding: 'model.embed_tokens.weight' });
  const softmax = { normEps: sizes.eps, scale: multipliers.scores };
  const branches: Branch[] = [];
  for (const [i, type] of sizes.layers.entries()) {
    const layer = `model.layers.${i}.`;
    const mixerNorm = await vector(source, `${layer}input_layernorm.weight`, hidden);
    const mixer =
      type === 'mamba'
        ? await mamba2Mixer(source, sizes.mixer, `${layer}mamba.`, state)
        : await softmaxLayer(source, { ...sizes, window: 0 }, softmax, `${layer}self_attn.`, kv);
    const norm = await vector(source, `${layer}post_attention_layernorm.weight`, hidden);
    branches.push({ norm: mixerNorm, layer: mixer }, { norm, layer: await feedForward(source, sizes, layer) });
  }
  // The logits are scaled where their inputs are: in the last norm.
  const last = [{ name: 'model.norm.weight', stored: [hidden] }];
  const norm = await source.computed(last, [hidden], (weight) => weight!.map((x) => x * multipliers.logits));
  const scales = { embeddingScale: multipliers.embedding, branchScale: multipliers.branch };
  const kind = { activations: source.activations, normEps: sizes.eps, zeroCentred: false, ...scales };
  return new LanguageModel({ ...ends, branches, norm, ...kind, state, kv });
}

export const graniteMoeHybrid: Family = {
  modelTypes: ['granitemoehybrid'],
  read(config: Config): Plan {
    const stopIds = config.numbers('eos_token_id') ?? [2];
    const contextLength = config.get('size', 'max_position_embeddings', 2048);
    const sizes = readSizes(config);
    return {
      family: 'granitemoehybrid',
      stopIds,
      contextLength,
      ignored: /^$/,
      build: (source) => build(source, sizes, config),
    };
  },
};
