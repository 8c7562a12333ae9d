// Qwen3.5, dense and with experts, and Qwen3-Next: three Gated DeltaNet layers to one gated softmax layer. Text only:
// visual and multi-token-prediction tensors are left unread. Layout: transformers models/{qwen3_5,qwen3_5_moe,qwen3_next}.
import { Attention, inverseFrequencies } from '../../layers/attention';
import { GatedDeltaNet } from '../../layers/gated-delta-net';
import { KvLayout, type Layer, StateLayout } from '../../layers/layer';
import { MixtureOfExperts } from '../../layers/mixture-of-experts';
import { bookkeeping, type Config } from '../config';
import { type Branch, LanguageModel } from '../language-model';
import type { Part, RowRange, WeightSource } from '../weights';
import { separateExperts, stackedExperts } from './experts';
import type { Family, Plan } from './family';
import { embeddingAndHead, gatedMlp, vector } from './parts';
import { readSizes, type Sizes } from './qwen3-5-sizes';

async function build(source: WeightSource, sizes: Sizes, prefix: string, where: Config): Promise<LanguageModel> {
  const { hidden } = sizes;
  const state = new StateLayout();
  const kv = new KvLayout();
  const { embedding, head } = await embeddingAndHead(source, where, {
    ...sizes,
    embedding: `${prefix}embed_tokens.weight`,
  });
  const branches: Branch[] = [];
  for (const [i, type] of sizes.layers.entries()) {
    const layer = `${prefix}layers.${i}.`;
    const mixerNorm = await vector(source, `${layer}input_layernorm.weight`, hidden);
    const mixer =
      type === 'linear_attention'
        ? await deltaNet(source, sizes, `${layer}linear_attn.`, state)
        : await attention(source, sizes, `${layer}self_attn.`, kv);
    const mlpNorm = await vector(source, `${layer}post_attention_layernorm.weight`, hidden);
    const mlp = await feedForward(source, sizes, `${layer}mlp.`);
    branches.push({ norm: mixerNorm, layer: mixer }, { norm: mlpNorm, layer: mlp });
  }
  const norm = await vector(source, `${prefix}norm.weight`, hidden);
  const { activations } = source;
  const kind = { activations, normEps: sizes.eps, zeroCentred: true };
  return new LanguageModel({ embedding, branches, norm, head, ...kind, state, kv });
}

async function feedForward(source: WeightSource, { hidden, inner, experts }: Sizes, name: string): Promise<Layer> {
  if (experts === undefined) return gatedMlp(source, name, hidden, inner);
  const [gateUp, down] = [`${name}experts.gate_up_proj`, `${name}experts.down_proj`];
  const weights = {
    router: await source.linear([{ name: `${name}gate.weight`, out: experts.experts }], hidden),
    ...(source.has(gateUp)
      ? await stackedExperts(source, experts, { gateUp, down })
      : await separateExperts(source, experts, `${name}experts.`)),
    shared: await gatedMlp(source, `${name}shared_expert.`, hidden, inner),
    sharedGate: await source.linear([{ name: `${name}shared_expert_gate.weight`, out: 1 }], hidden),
  };
  const { chosen: count, renormalise } = experts;
  return new MixtureOfExperts(weights, experts.experts, { count, score: 'softmax', renormalise });
}

/** Rows q | k | v | z | b | a of a linear layer's input. */
function deltaInput({ keyHeads, valueHeads, keyWidth, valueWidth, byKeyHead }: Sizes, name: string): Part[] {
  const values = valueHeads * valueWidth;
  if (!byKeyHead) {
    return [
      { name: `${name}in_proj_qkv.weight`, out: 2 * keyHeads * keyWidth + values },
      { name: `${name}in_proj_z.weight`, out: values },
      { name: `${name}in_proj_b.weight`, out: valueHeads },
      { name: `${name}in_proj_a.weight`, out: valueHeads },
    ];
  }
  // A key head has its parts one after the other: q | k | v | z in one matrix, b | a in another.
  const split = (tensor: string, sizes: readonly number[]): Part[] => {
    const all = sizes.reduce((sum, size) => sum + size, 0);
    return sizes.map((size, i) => {
      const before = sizes.slice(0, i).reduce((sum, other) => sum + other, 0);
      const rows = Array.from({ length: keyHeads }, (_, h): RowRange => [h * all + before, size]);
      return { name: name + tensor, out: keyHeads * all, rows };
    });
  };
  const each = values / keyHeads;
  return [
    ...split('in_proj_qkvz.weight', [keyWidth, keyWidth, each, each]),
    ...split('in_proj_ba.weight', [valueHeads / keyHeads, valueHeads / keyHeads]),
  ];
}

async function deltaNet(source: WeightSource, sizes: Sizes, name: string, state: StateLayout): Promise<Layer> {
  const { hidden, keyHeads, valueHeads, keyWidth, valueWidth, convTaps } = sizes;
  const values = valueHeads * valueWidth;
  const qkv = 2 * keyHeads * keyWidth + values;
  const own = (tensor: string, length: number) => vector(source, name + tensor, length);
  const input = await source.linear(deltaInput(sizes, name), hidden);
  const conv = await source.values([{ name: `${name}conv1d.weight`, stored: [qkv, 1, convTaps] }], [qkv, convTaps]);
  const weights = {
    input,
    conv,
    output: await source.linear([{ name: `${name}out_proj.weight`, out: hidden }], values),
    decay: { aLog: await own('A_log', valueHeads), dtBias: await own('dt_bias', valueHeads) },
    norm: await own('norm.weight', valueWidth),
  };
  const options = { normEps: sizes.eps, gate: 'silu' as const, negativeEigenvalues: false };
  return new GatedDeltaNet({ keyHeads, valueHeads, keyWidth, valueWidth, convTaps }, weights, options, state, name);
}

async function attention(source: WeightSource, sizes: Sizes, name: string, kv: KvLayout): Promise<Layer> {
  const { hidden, heads, kvHeads, width } = sizes;
  // q_proj holds, head by head, `width` rows of the query and then `width` rows of the gate.
  const every = (first: number): RowRange[] =>
    Array.from({ length: heads }, (_, h) => [(2 * h + first) * width, width]);
  const query = { name: `${name}q_proj.weight`, out: 2 * heads * width };
  const input = await source.linear(
    [
      { ...query, rows: every(0) },
      { name: `${name}k_proj.weight`, out: kvHeads * width },
      { name: `${name}v_proj.weight`, out: kvHeads * width },
      { ...query, rows: every(1) },
    ],
    hidden,
  );
  const norm = (tensor: string) => vector(source, name + tensor, width);
  const weights = {
    input,
    output: await source.linear([{ name: `${name}o_proj.weight`, out: hidden }], heads * width),
    queryNorm: await norm('q_norm.weight'),
    keyNorm: await norm('k_norm.weight'),
    inverseFrequencies: source.own((device) => inverseFrequencies(sizes.rotary, sizes.theta, device)),
  };
  const options = { normEps: sizes.eps, zeroCentred: true, gated: true };
  return new Attention({ heads, kvHeads, width, window: 0 }, weights, options, kv);
}

export const qwen35: Family = {
  modelTypes: ['qwen3_5', 'qwen3_5_text', 'qwen3_5_moe', 'qwen3_5_moe_text', 'qwen3_next'],
  read(config: Config): Plan {
    const inner = config.object('text_config');
    const text = inner ?? config;
    if (inner !== undefined) {
      config.ignore(...bookkeeping, 'text_config', 'vision_config', 'image_token_id', 'video_token_id');
      config.ignore('vision_start_token_id', 'vision_end_token_id', 'eos_token_id', 'quantization_config');
      if (config.raw('quantization_config') !== undefined) throw config.bad('quantization_config', 'absent', 'one');
    }
    const tiedOutside = inner !== undefined && config.raw('tie_word_embeddings') !== undefined;
    const tied = tiedOutside ? config.get('boolean', 'tie_word_embeddings') : undefined;
    if (inner !== undefined) config.finish();
    const stopIds = [...(config.numbers('eos_token_id') ?? []), ...(text.numbers('eos_token_id') ?? [])];
    const contextLength = text.get('size', 'max_position_embeddings', 262144);
    const sizes = readSizes(text, tied);
    return {
      family: config.get('string', 'model_type').replace(/_text$/, ''),
      stopIds: [...new Set(stopIds)],
      contextLength,
      ignored: /^(model\.visual\.|visual\.|mtp\.|model\.mtp\.)/,
      build: (source) => {
        const released = 'model.language_model.';
        return build(source, sizes, source.has(`${released}embed_tokens.weight`) ? released : 'model.', config);
      },
    };
  },
};
