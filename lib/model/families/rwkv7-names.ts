// Names and shapes of RWKV-7's weights in the two layouts that rwkv7.ts reads.
import type { WeightSource } from '../weights';

export type Gate = 'w' | 'a' | 'v' | 'g';

/** Where the two layouts keep a layer's tensors. */
export interface Names {
  embedding: string;
  head: string;
  embeddingNorm: string;
  finalNorm: string;
  layer(i: number): { mixerNorm: string; mixer: string; ffnNorm: string; ffn: string };
  /** Of a mixer: receptance, key, value, output, and the group norm. */
  linears: readonly [string, string, string, string];
  groupNorm: string;
  /** Shapes of vectors of C values, and of the one in the feed-forward block. */
  vector(hidden: number): { shift: number[]; ffnShift: number[]; scale: number[] };
  lowRank(gate: Gate): {
    down: string;
    up: string;
    bias: string;
    transposed: boolean;
    biasShape(hidden: number): number[];
  };
}

const authors = (prefix: string): Names => ({
  embedding: `${prefix}emb.weight`,
  head: 'head.weight',
  embeddingNorm: `${prefix}blocks.0.ln0`,
  finalNorm: `${prefix}ln_out`,
  layer: (i) => {
    const block = `${prefix}blocks.${i}.`;
    return { mixerNorm: `${block}ln1`, mixer: `${block}att.`, ffnNorm: `${block}ln2`, ffn: `${block}ffn.` };
  },
  linears: ['receptance', 'key', 'value', 'output'],
  groupNorm: 'ln_x',
  vector: (hidden) => ({ shift: [1, 1, hidden], ffnShift: [1, 1, hidden], scale: [1, 1, hidden] }),
  lowRank: (gate) => ({
    down: `${gate}1`,
    up: `${gate}2`,
    bias: `${gate}0`,
    transposed: true,
    biasShape: (hidden) => [1, 1, hidden],
  }),
});

const fla: Names = {
  embedding: 'model.embeddings.weight',
  head: 'lm_head.weight',
  embeddingNorm: 'model.layers.0.pre_norm',
  finalNorm: 'model.norm',
  layer: (i) => {
    const layer = `model.layers.${i}.`;
    return { mixerNorm: `${layer}attn_norm`, mixer: `${layer}attn.`, ffnNorm: `${layer}ffn_norm`, ffn: `${layer}ffn.` };
  },
  linears: ['r_proj', 'k_proj', 'v_proj', 'o_proj'],
  groupNorm: 'g_norm',
  vector: (hidden) => ({ shift: [1, 1, hidden], ffnShift: [hidden], scale: [hidden] }),
  lowRank: (gate) => ({
    down: `${gate}_lora.lora.0.weight`,
    up: `${gate}_lora.lora.2.weight`,
    bias: `${gate}_lora.lora.2.bias`,
    transposed: false,
    biasShape: (hidden) => [hidden],
  }),
};

/** Those of the checkpoint that `source` reads. */
export function namesOf(source: WeightSource): Names {
  if (source.has(fla.embedding)) return fla;
  return authors(source.has('rwkv7.emb.weight') ? 'rwkv7.' : '');
}
