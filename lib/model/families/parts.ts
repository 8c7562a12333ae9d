// Parts that every family reads alike.
import { Attention, type AttentionOptions, inverseFrequencies } from '../../layers/attention';
import type { KvLayout, Layer } from '../../layers/layer';
import { GatedMlp } from '../../layers/mlp';
import type { Weight } from '../../ops/weight';
import type { Tensor } from '../../tensor/tensor';
import type { Config } from '../config';
import type { WeightSource } from '../weights';

export const vector = (source: WeightSource, name: string, length: number): Promise<Tensor<'float32'>> =>
  source.values([{ name, stored: [length] }], [length]);

/** The feed-forward block under `name`: gate_proj, up_proj [inner, hidden], down_proj [hidden, inner]. */
export async function gatedMlp(source: WeightSource, name: string, hidden: number, inner: number): Promise<Layer> {
  const parts = ['gate', 'up'].map((part) => ({ name: `${name}${part}_proj.weight`, out: inner }));
  const gateUp = await source.linear(parts, hidden);
  return new GatedMlp(gateUp, await source.linear([{ name: `${name}down_proj.weight`, out: hidden }], inner));
}

/** Embedding [vocabulary, hidden] and head: lm_head.weight where it is stored, else the embedding when the config ties them. */
export async function embeddingAndHead(
  source: WeightSource,
  config: Config,
  sizes: { embedding: string; vocabulary: number; hidden: number; tied: boolean },
): Promise<{ embedding: Weight; head: Weight }> {
  const { vocabulary, hidden, tied } = sizes;
  const untied = source.has('lm_head.weight');
  if (!tied && !untied) throw config.bad('tie_word_embeddings', 'true where lm_head.weight is missing', false);
  const embedding = await source.linear([{ name: sizes.embedding, out: vocabulary }], hidden);
  const head = untied ? await source.linear([{ name: 'lm_head.weight', out: vocabulary }], hidden) : embedding;
  return { embedding, head };
}

export interface SoftmaxLayerSizes {
  readonly hidden: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly width: number;
  /** 0: none. */
  readonly window: number;
  /** Of RoPE over the whole width; undefined: no positions. */
  readonly theta: number | undefined;
  /** Of q, k and v; none by default. */
  readonly bias?: boolean;
  /** Of the heads of q and k; none by default. */
  readonly norm?: boolean;
}

/** Softmax attention under `name`: q_proj, k_proj, v_proj, o_proj; q_norm and k_norm. */
export async function softmaxLayer(
  source: WeightSource,
  sizes: SoftmaxLayerSizes,
  options: Pick<AttentionOptions, 'normEps' | 'scale'>,
  name: string,
  kv: KvLayout,
): Promise<Layer> {
  const { hidden, heads, kvHeads, width, window, theta, bias = false, norm = false } = sizes;
  const parts = Object.entries({ q: heads, k: kvHeads, v: kvHeads }).map(([part, count]) => ({
    name: `${name}${part}_proj`,
    out: count * width,
  }));
  const biases = parts.map((part) => ({ name: `${part.name}.bias`, stored: [part.out] }));
  const normOf = (part: string) => (norm ? vector(source, `${name}${part}_norm.weight`, width) : undefined);
  const weights = {
    input: await source.linear(
      parts.map((part) => ({ ...part, name: `${part.name}.weight` })),
      hidden,
    ),
    inputBias: bias ? await source.values(biases, [(heads + 2 * kvHeads) * width]) : undefined,
    output: await source.linear([{ name: `${name}o_proj.weight`, out: hidden }], heads * width),
    queryNorm: await normOf('q'),
    keyNorm: await normOf('k'),
    inverseFrequencies:
      theta === undefined ? undefined : source.own((device) => inverseFrequencies(width, theta, device)),
  };
  const plain = { zeroCentred: false, gated: false };
  return new Attention({ heads, kvHeads, width, window }, weights, { ...plain, ...options }, kv);
}

/** theta of RoPE, in rope_parameters or beside it; no scaling of it is known. */
export function readTheta(config: Config, byDefault: number): number {
  if (config.raw('rope_scaling') !== undefined) throw config.bad('rope_scaling', 'absent', config.raw('rope_scaling'));
  const rope = config.object('rope_parameters') ?? config;
  rope.only('rope_type', 'default');
  const theta = rope.get('number', 'rope_theta', byDefault);
  if (rope !== config) rope.finish();
  return theta;
}
