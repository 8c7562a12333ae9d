// Parts that every family reads alike.
import type { Layer } from '../../layers/layer';
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
