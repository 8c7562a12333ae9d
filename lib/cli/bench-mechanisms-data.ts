// The text of `linattn bench --mechanisms`: queries, keys and values that no model made, the same for every mechanism.

import type { Hidden } from '../layers/layer';
import { convert } from '../ops/convert';
import type { DeviceName } from '../tensor/device';
import { Tensor } from '../tensor/tensor';
import { NormalNumbers } from './bench-normal';

export type MechanismDType = 'float32' | 'bfloat16';

/** [T, H, D] each. */
export interface Tokens {
  readonly q: Hidden;
  readonly k: Hidden;
  readonly v: Hidden;
}

/** Tokens over which the topic changes to e^-1 of itself. */
const topicTokens = 256;
/** Standard deviations of what a query or key has of its topic, and of its own. */
const [topicShare, ownShare] = [0.35, 0.7];

/**
 * A sequence whose topic drifts: each head has two vectors of D values, one that its queries and keys share and one of
 * its values, which forget themselves over 256 tokens; a token adds noise of its own. So near tokens are alike, scores
 * have a standard deviation of about 0.6, and what was far back still counts.
 */
export class DriftingText {
  private readonly normals = new NormalNumbers();
  private readonly topics: Float32Array;

  constructor(
    readonly heads: number,
    readonly width: number,
  ) {
    this.topics = new Float32Array(2 * heads * width).map(() => this.normals.next());
  }

  /** The next tokens. */
  next(count: number, device: DeviceName, dtype: MechanismDType): Tokens {
    const { heads, width, topics } = this;
    const values = heads * width;
    const kept = Math.exp(-1 / topicTokens);
    const fresh = Math.sqrt(1 - kept * kept);
    const [q, k, v] = [0, 1, 2].map(() => new Float32Array(count * values)) as [
      Float32Array,
      Float32Array,
      Float32Array,
    ];
    for (let token = 0; token < count; token++) {
      for (let i = 0; i < values; i++) {
        const at = token * values + i;
        topics[i] = kept * topics[i]! + fresh * this.normals.next();
        topics[values + i] = kept * topics[values + i]! + fresh * this.normals.next();
        q[at] = topicShare * topics[i]! + ownShare * this.normals.next();
        k[at] = topicShare * topics[i]! + ownShare * this.normals.next();
        v[at] = topics[values + i]! + this.normals.next();
      }
    }
    const tensor = (data: Float32Array): Hidden => {
      const x = Tensor.from(data, { dtype: 'float32', shape: [count, heads, width], device });
      return dtype === 'float32' ? x : convert({ x, dtype });
    };
    return { q: tensor(q), k: tensor(k), v: tensor(v) };
  }
}
