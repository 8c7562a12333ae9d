// What the families of flash-linear-attention share: pre-norm blocks of a mixer and a SwiGLU, softmax layers in between,
// names of weights. Layout: fla models/*/modeling_*.py and layers/attn.py of version 0.6.
import { checkWidth, KvLayout, type Layer, StateLayout } from '../../layers/layer';
import type { Tensor } from '../../tensor/tensor';
import { bookkeeping, type Config } from '../config';
import { type Branch, LanguageModel } from '../language-model';
import type { WeightSource } from '../weights';
import type { Family, Plan } from './family';
import { embeddingAndHead, gatedMlp, type SoftmaxLayerSizes, softmaxLayer, vector } from './parts';

interface SoftmaxSizes extends Omit<SoftmaxLayerSizes, 'hidden'> {
  layers: ReadonlySet<number>;
}

export interface FlaSizes {
  hidden: number;
  inner: number;
  vocabulary: number;
  layers: number;
  eps: number;
  tied: boolean;
  softmax: SoftmaxSizes | undefined;
}

// fla's Attention layer makes its q and k norms with the default eps of its RMSNorm, whatever the config says.
const softmaxNormEps = 1e-5;

/** The fields that every such config has. */
function readCommon(config: Config, { layers, ratio }: { layers: number; ratio: number }): FlaSizes {
  const size = (name: string, fallback: number) => config.get('size', name, fallback);
  config.ignore(...bookkeeping, 'attn_mode', 'fuse_norm', 'fuse_swiglu', 'fuse_cross_entropy', 'use_l2warp');
  config.ignore('fuse_linear_cross_entropy', 'max_position_embeddings', 'eos_token_id');
  config.only('hidden_act', 'swish', 'silu');
  if (config.raw('attnres_block_size') !== undefined) throw config.bad('attnres_block_size', 'absent', 'one');
  const hidden = size('hidden_size', 2048);
  const hiddenRatio = config.get('number', 'hidden_ratio', ratio);
  const rounded = 256 * Math.ceil(Math.floor((hidden * hiddenRatio * 2) / 3) / 256);
  return {
    hidden,
    inner: size('intermediate_size', rounded),
    vocabulary: size('vocab_size', 32000),
    layers: config.get('count', 'num_hidden_layers', layers),
    eps: config.get('number', 'norm_eps', 1e-6),
    tied: config.get('boolean', 'tie_word_embeddings', false),
    softmax: readSoftmax(config, hidden),
  };
}

function readSoftmax(config: Config, hidden: number): SoftmaxSizes | undefined {
  const attn = config.object('attn');
  if (attn === undefined) return undefined;
  const layers = attn.numbers('layers');
  if (layers === undefined) throw attn.bad('layers', 'a list of layer numbers', undefined);
  const heads = attn.get('count', 'num_heads');
  const window = attn.raw('window_size') === undefined ? 0 : attn.get('size', 'window_size');
  const sizes: SoftmaxSizes = {
    layers: new Set(layers),
    heads,
    kvHeads: attn.get('count', 'num_kv_heads', heads),
    width: hidden / heads,
    window,
    theta: attn.get('number', 'rope_theta', 10000),
    bias: attn.get('boolean', 'qkv_bias', false),
    norm: attn.get('boolean', 'qk_norm', false),
  };
  attn.finish();
  if (heads % sizes.kvHeads !== 0) throw attn.bad('num_kv_heads', `a divisor of num_heads = ${heads}`, sizes.kvHeads);
  checkWidth(attn.where, `hidden_size / num_heads`, sizes.width, 512);
  return sizes;
}

/** hidden_size * expand_k / num_heads, or the like for values: ERR_MODEL_UNSUPPORTED unless it fits the kernels. */
export function widthOfHead(config: Config, field: string, expand: number, hidden: number, heads: number): number {
  const width = (hidden * expand) / heads;
  checkWidth(config.where, `hidden_size x ${field} / num_heads`, width, 512);
  return width;
}

/** Rows of the fused input: those of `name`<part>_proj.weight for each part that has some. */
export const projections = (name: string, outs: Readonly<Record<string, number>>) =>
  Object.entries(outs)
    .filter(([, out]) => out > 0)
    .map(([part, out]) => ({ name: `${name}${part}_proj.weight`, out }));

/** The short convolutions of q, k and v as one, [channels, taps]; undefined for 0 taps. */
export async function shortConv(
  source: WeightSource,
  name: string,
  channels: { q: number; k: number; v: number },
  taps: number,
): Promise<Tensor<'float32'> | undefined> {
  if (taps === 0) return undefined;
  const parts = Object.entries(channels).map(([part, size]) => ({
    name: `${name}${part}_conv1d.weight`,
    stored: [size, 1, taps],
  }));
  return source.values(parts, [channels.q + channels.k + channels.v, taps]);
}

/** conv_size when the switch is on, else 0. */
export function readTaps(config: Config, byDefault: boolean): number {
  const taps = config.get('size', 'conv_size', 4);
  if (!config.get('boolean', 'use_short_conv', byDefault)) return 0;
  if (taps === 1) throw config.bad('conv_size', 'at least 2', 1);
  return taps;
}

type Mixer = (source: WeightSource, name: string, state: StateLayout, index: number) => Promise<Layer>;

async function build(source: WeightSource, sizes: FlaSizes, where: Config, mixer: Mixer): Promise<LanguageModel> {
  const { hidden, softmax } = sizes;
  const state = new StateLayout();
  const kv = new KvLayout();
  const { embedding, head } = await embeddingAndHead(source, where, { ...sizes, embedding: 'model.embeddings.weight' });
  const branches: Branch[] = [];
  for (let i = 0; i < sizes.layers; i++) {
    const layer = `model.layers.${i}.`;
    const mixerNorm = await vector(source, `${layer}attn_norm.weight`, hidden);
    const mixed = softmax?.layers.has(i)
      ? await softmaxLayer(source, { ...softmax, hidden }, { normEps: softmaxNormEps }, `${layer}attn.`, kv)
      : await mixer(source, `${layer}attn.`, state, i);
    const mlpNorm = await vector(source, `${layer}mlp_norm.weight`, hidden);
    const mlp = await gatedMlp(source, `${layer}mlp.`, hidden, sizes.inner);
    branches.push({ norm: mixerNorm, layer: mixed }, { norm: mlpNorm, layer: mlp });
  }
  const norm = await vector(source, 'model.norm.weight', hidden);
  const { activations } = source;
  const kind = { activations, normEps: sizes.eps, zeroCentred: false };
  return new LanguageModel({ embedding, branches, norm, head, ...kind, state, kv });
}

/** A family from what its config adds to the common fields, and the mixer that comes of it. */
export const flaFamily = (
  modelType: string,
  defaults: { layers: number; ratio: number },
  mixerOf: (config: Config, sizes: FlaSizes) => Mixer,
): Family => ({
  modelTypes: [modelType],
  read(config: Config): Plan {
    const stopIds = config.numbers('eos_token_id') ?? [2];
    const sizes = readCommon(config, defaults);
    const mixer = mixerOf(config, sizes);
    config.finish();
    return {
      family: modelType,
      stopIds,
      contextLength: 2 ** 20, // max_position_embeddings only sizes a table in fla
      ignored: /^$/,
      build: (source) => build(source, sizes, config, mixer),
    };
  },
});
