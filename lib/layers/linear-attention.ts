// LinearAttention: any mechanism of the family on a caller's own queries, keys and values.
import { checkOptions, linattnError, shown } from '../errors';
import { featureCount, paddedWidth } from '../ops/feature-map';
import { type LogDecay, linearAttention, type Rule } from '../ops/linear-attention';
import { Sequences } from '../ops/sequences';
import type { DeviceName } from '../tensor/device';
import { scope } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { checkGiven, checkInstance, checkTensor } from './arguments';
import { checkSizes } from './attention-tokens';
import { checkMap, keyFeatures, type LayerFeatureMap, queryFeatures } from './feature-maps';
import type { Hidden } from './layer';
import { LinearAttentionState, type LinearAttentionStateSizes } from './linear-attention-state';

export interface LinearAttentionOptions {
  /** Of queries and keys; { name: 'identity' } by default. */
  readonly featureMap?: LayerFeatureMap | undefined;
  /** Of keys, where it is another (its own learned projection, say). */
  readonly keyFeatureMap?: LayerFeatureMap | undefined;
  /** 'additive' by default. */
  readonly rule?: Rule['name'] | undefined;
  /** Fixed decays by head, or what the decays of a call are by; none by default. */
  readonly decay?: { per: 'head'; g: Tensor<'float32'> } | { per: 'token' | 'channel' | 'value' } | undefined;
  /** The rule 'additive' only: the output is divided by z'q + eps, z the decayed sum of key features. */
  readonly normalize?: { readonly eps: number } | undefined;
  /** Of the output; 1 by default, and with normalize. */
  readonly scale?: number | undefined;
}

/** Tokens that are remembered. */
export interface LinearAttentionMemory {
  /** [T, Hk, D] and [T, Hv, V], float32, bfloat16 or float16; V is a multiple of 8 up to 512. */
  k: Hidden;
  v: Hidden;
  sequences: Sequences;
  /** The decays of these tokens, as linearAttention takes them, where the layer's are per token, channel or value. */
  decay?: Tensor | undefined;
  /** float32 [T, H], for the rule 'delta'. */
  beta?: Tensor<'float32'> | undefined;
  /** [T, H, F] as k, for the rule 'lowRank'. */
  a?: Tensor | undefined;
  b?: Tensor | undefined;
}

export interface LinearAttentionCall extends LinearAttentionMemory {
  /** [T, Hq, D] */
  q: Hidden;
}

const fail = (code: 'ERR_ARGUMENT' | 'ERR_UNSUPPORTED', message: string): never => {
  throw linattnError(code, `LinearAttention: ${message}`);
};

/**
 * out = S'phi(q), S the decayed sum of phi(k) v' (or what the rule makes of it), divided by z'phi(q) + eps with
 * normalize. The layer holds no sequences and owns nothing: states are made by createState, weights and projections are
 * the caller's. On the CPU any split of a sequence, any batch and any number of threads give the same bits.
 */
export class LinearAttention {
  private readonly queryMap: LayerFeatureMap;
  private readonly keyMap: LayerFeatureMap;
  private readonly rule: Rule['name'];
  /** Whether keys carry a running maximum. */
  private readonly streamed: boolean;

  /** @throws LinattnError ERR_ARGUMENT, ERR_UNSUPPORTED for options that exclude each other, or that are no recurrence */
  constructor(private readonly options: LinearAttentionOptions = {}) {
    checkOptions('LinearAttention', options);
    const { featureMap = { name: 'identity' }, keyFeatureMap = featureMap, rule = 'additive' } = options;
    const { normalize, decay, scale = 1 } = options;
    checkMap('LinearAttention', 'featureMap', featureMap);
    checkMap('LinearAttention', 'keyFeatureMap', keyFeatureMap);
    this.queryMap = featureMap;
    this.keyMap = keyFeatureMap;
    this.rule = rule;
    const favor = featureMap.name === 'favor' ? featureMap : undefined;
    this.streamed = favor !== undefined && favor.projection.kind !== 'relu';
    if ((options as { relativeBias?: unknown }).relativeBias !== undefined) {
      fail(
        'ERR_UNSUPPORTED',
        'a learned bias by distance (relativeBias) is no recurrence of constant size: it would need every earlier key ' +
          'again at each token. A decay per head is one (ALiBi); WindowedLinearAttention has the bias in its window',
      );
    }
    if (normalize !== undefined && !(Number.isFinite(normalize?.eps) && normalize.eps >= 0))
      fail('ERR_ARGUMENT', `normalize.eps must be a number of 0 or more, got ${shown(normalize?.eps)}`);
    if (normalize && rule !== 'additive')
      fail('ERR_ARGUMENT', `normalize needs the rule 'additive', got '${shown(rule)}'`);
    if (normalize && scale !== 1) fail('ERR_ARGUMENT', `scale must be 1 with normalize, got ${shown(scale)}`);
    if (favor && (keyFeatureMap.name !== 'favor' || keyFeatureMap.projection !== favor.projection)) {
      fail(
        'ERR_ARGUMENT',
        'queries and keys of favor must have one projection: the features of two say nothing together',
      );
    }
    if (!this.streamed) return;
    if (!normalize) {
      fail('ERR_ARGUMENT', 'favor must have normalize: what its maxima subtract cancels in the quotient alone');
    }
    if (decay && decay.per !== 'head' && decay.per !== 'token') {
      fail('ERR_UNSUPPORTED', `favor has a decay per head or token, got per ${decay.per}`);
    }
  }

  /** F of features: the key width of a state, for vectors of D values. */
  featureWidth(D: number): number {
    const map = this.keyMap;
    if (map.name === 'favor') return paddedWidth(map.projection.features);
    return paddedWidth(featureCount(map.name, map.projection?.weights[0]?.shape[0] ?? D, map.order));
  }

  /** Slots for sequences. */
  createState(sizes: LinearAttentionStateSizes & { device?: DeviceName | undefined }): LinearAttentionState {
    checkOptions('LinearAttention', sizes);
    const { slots, heads, keyWidth, valueWidth } = sizes;
    checkSizes('LinearAttention', { slots, heads, keyWidth, valueWidth });
    return this.stateOf(sizes);
  }

  private stateOf(sizes: LinearAttentionStateSizes & { device?: DeviceName | undefined }): LinearAttentionState {
    const keySum = this.options.normalize !== undefined;
    return new LinearAttentionState(sizes, { keySum, keyMax: this.streamed, device: sizes.device });
  }

  /**
   * Causal: each token sees itself and what came before.
   * @param state goes on from the sequences' read slots and ends in their write slots; absent: from zero, then dropped
   * @returns [T, Ho, V] as q
   * @throws LinattnError as linearAttention; ERR_UNSUPPORTED for what is not causal
   */
  forward(call: LinearAttentionCall, state?: LinearAttentionState): Hidden {
    checkCall(call, ['q', 'k', 'v']);
    if (state !== undefined) checkInstance('LinearAttention', 'state', state, LinearAttentionState);
    return scope(() => {
      const { q, sequences } = call;
      const { decay, k } = this.keysOf(call, state);
      const { normalize, scale } = this.options;
      const features = queryFeatures(q, this.queryMap, sequences);
      const held = { state: state?.state, keySum: state?.keySum };
      const rule = this.ruleOf(call);
      return linearAttention({ q: features, k, v: call.v, rule, decay, normalize, scale, sequences, ...held })
        .out as Hidden;
    });
  }

  /** Tokens into the state, nothing out: a memory for `recall`, in as many calls as it takes. */
  remember(call: LinearAttentionMemory, state: LinearAttentionState): void {
    checkCall(call, ['k', 'v']);
    checkInstance('LinearAttention', 'state', state, LinearAttentionState);
    scope(() => {
      const { k, decay } = this.keysOf(call, state);
      const held = { state: state.state, keySum: state.keySum };
      linearAttention({ k, v: call.v, rule: this.ruleOf(call), decay, sequences: call.sequences, ...held });
    });
  }

  /**
   * Cross-attention: queries over all that the read slots remember. The state stays as it is, whatever the write slots.
   * @param q [T, Hq, D]
   * @returns [T, Ho, V] as q
   */
  recall(call: { q: Hidden; sequences: Sequences }, state: LinearAttentionState): Hidden {
    checkCall(call, ['q']);
    checkInstance('LinearAttention', 'state', state, LinearAttentionState);
    const { q, sequences } = call;
    return scope(() => {
      const features = queryFeatures(q, this.queryMap, sequences);
      return this.read(features, withSlots(sequences, 'same', -1), state);
    });
  }

  /**
   * Not causal, for encoders: each token sees its whole sequence. Slots of the sequences are not used.
   * @returns [T, Ho, V] as q
   * @throws LinattnError ERR_UNSUPPORTED with a decay or another rule than 'additive', which have an order
   */
  bidirectional(call: Pick<LinearAttentionCall, 'q' | 'k' | 'v' | 'sequences'>): Hidden {
    checkCall(call, ['q', 'k', 'v']);
    const { q, k, v, sequences } = call;
    if (this.rule !== 'additive' || this.options.decay) {
      fail('ERR_UNSUPPORTED', 'bidirectional attention has no order, so it needs the rule additive, without decay');
    }
    return scope(() => {
      const eps = this.keyMap.name === 'favor' && this.streamed ? this.keyMap.eps : 0;
      const rest = { sequences, maximum: 'sequence', keyMax: undefined, decay: undefined } as const;
      const { features } = keyFeatures(k, this.keyMap, rest);
      const [, heads, keyWidth] = features.shape as [number, number, number];
      const valueWidth = v.shape[2] ?? 0;
      const slots = sequences.rows;
      using held = this.stateOf({
        slots,
        heads: Math.max(heads, v.shape[1] ?? 0),
        keyWidth,
        valueWidth,
        device: q.device,
      });
      const own = withSlots(sequences, -1, 'own');
      linearAttention({
        k: features,
        v,
        rule: { name: 'additive' },
        sequences: own,
        state: held.state,
        keySum: held.keySum,
      });
      return this.read(queryFeatures(q, this.queryMap, sequences, eps), withSlots(sequences, 'own', -1), held);
    });
  }

  private read(q: Hidden, sequences: Sequences, { state, keySum }: LinearAttentionState): Hidden {
    const { normalize, scale } = this.options;
    return linearAttention({ q, rule: { name: 'additive' }, normalize, scale, sequences, state, keySum }).out as Hidden;
  }

  private keysOf(
    call: LinearAttentionMemory,
    state: LinearAttentionState | undefined,
  ): { k: Hidden; decay?: LogDecay } {
    const { k, v, sequences, decay: given } = call;
    const own = this.options.decay;
    const perCall = own !== undefined && own.per !== 'head';
    if (perCall !== (given !== undefined)) {
      fail(
        'ERR_ARGUMENT',
        perCall ? `decay must be given, per ${own.per}` : 'decay is given, but the layer has none by call',
      );
    }
    const g = own?.per === 'head' ? own.g : given;
    if (!this.streamed) {
      const { features } = keyFeatures(k, this.keyMap, {
        sequences,
        maximum: 'none',
        keyMax: undefined,
        decay: undefined,
      });
      return { k: features, ...(own && { decay: { per: own.per, g: g! } }) };
    }
    if (this.keyMap.name === 'favor' && (this.keyMap.eps ?? 0) > 0) {
      fail(
        'ERR_UNSUPPORTED',
        'eps of favor must be 0 here: it needs the maximum of the whole sequence, future included',
      );
    }
    if (k.shape[1] !== undefined && v.shape[1] !== undefined && k.shape[1] < v.shape[1]) {
      fail('ERR_UNSUPPORTED', `favor needs as many key heads as value heads, got ${k.shape[1]} and ${v.shape[1]}`);
    }
    const decay = g as Tensor<'float32'> | undefined;
    const made = keyFeatures(k, this.keyMap, { sequences, maximum: 'running', keyMax: state?.keyMax, decay });
    return { k: made.features, decay: { per: 'token', g: made.logDecay! } };
  }

  private ruleOf({ beta, a, b }: LinearAttentionMemory): Rule {
    if (this.rule === 'delta') return { name: 'delta', beta: beta ?? fail('ERR_ARGUMENT', 'beta must be given') };
    if (this.rule !== 'lowRank') return { name: this.rule };
    const missing = (): never => fail('ERR_ARGUMENT', 'a and b must be given');
    return { name: 'lowRank', a: a ?? missing(), b: b ?? missing() };
  }
}

const optionalTensors = ['decay', 'beta', 'a', 'b'] as const;

/** ERR_ARGUMENT unless a call has these tensors, sequences, and nothing but tensors for what else it may have. */
function checkCall(call: Partial<LinearAttentionCall>, needed: readonly ('q' | 'k' | 'v')[]): void {
  checkOptions('LinearAttention', call);
  for (const name of needed) checkTensor('LinearAttention', name, call[name]);
  for (const name of optionalTensors) checkGiven('LinearAttention', name, call[name]);
  checkInstance('LinearAttention', 'sequences', call.sequences, Sequences);
}

/** The same tokens with other slots: -1, that of the row's own number, or what they were. */
function withSlots(sequences: Sequences, read: -1 | 'own' | 'same', write: -1 | 'own'): Sequences {
  const { rows, offsets } = sequences;
  const slots = (which: -1 | 'own'): Tensor<'int32'> =>
    Tensor.from(
      Array.from({ length: rows }, (_, n) => (which === 'own' ? n : which)),
      { dtype: 'int32', shape: [rows], device: offsets.device },
    );
  return new Sequences({
    ...sequences.record,
    readSlots: read === 'same' ? sequences.readSlots : slots(read),
    writeSlots: slots(write),
  });
}
