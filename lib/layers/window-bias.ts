// A learned bias by distance in a window of softmax attention, as P more features of queries and keys: a key has a one at
// its position modulo P, a query at each of these places the bias of the distance to it, so that their product is the bias.
import { linattnError } from '../errors';
import { convert, convertInto } from '../ops/convert';
import { Tensor } from '../tensor/tensor';

type Float32 = Tensor<'float32'>;

export class WindowBias {
  /** P: the window's tokens have places of their own; a multiple of 8. */
  readonly places: number;

  /**
   * @param biases of each query head: those of the distances 0 to window - 1
   * @throws LinattnError ERR_ARGUMENT
   */
  constructor(
    private readonly biases: readonly ArrayLike<number>[],
    private readonly window: number,
    heads: number,
  ) {
    const isWhole = (row: ArrayLike<number>) => row.length === window && Array.from(row).every(Number.isFinite);
    if (biases.length !== heads || !biases.every(isWhole)) {
      throw linattnError(
        'ERR_ARGUMENT',
        `WindowedLinearAttention: relativeBias must have ${window} numbers for each of ${heads} query heads, ` +
          `got [${biases.map(({ length }) => length).join(', ')}]`,
      );
    }
    this.places = Math.ceil(window / 8) * 8;
  }

  /** @param q [T, Hq, D] of the tokens from `position` on; scores are multiplied by `scale` */
  queries(q: Float32, position: number, scale: number): Float32 {
    const { places, window } = this;
    // Backwards and twice over: any rotation of it is a stretch.
    const rotations = this.biases.map((row) =>
      Float32Array.from({ length: 2 * places }, (_, x) => {
        const distance = (2 * places - 1 - x) % places;
        return distance < window ? row[distance]! / scale : 0;
      }),
    );
    return widened(q, places, (t, h) => {
      const start = places - 1 - ((position + t) % places);
      return rotations[h]!.subarray(start, start + places);
    });
  }

  /** @param k [T, Hkv, D] */
  keys(k: Float32, position: number): Float32 {
    const { places } = this;
    const one = Float32Array.from({ length: 2 * places }, (_, x) => (x === places ? 1 : 0));
    return widened(k, places, (t) => {
      const start = places - ((position + t) % places);
      return one.subarray(start, start + places);
    });
  }

  /** @param v [T, Hkv, D]; softmaxAttention has values as wide as keys */
  values(v: Float32): Float32 {
    const none = new Float32Array(this.places);
    return widened(v, this.places, () => none);
  }

  /** What was attended to, without the places: [T, Hq, D]. */
  narrowed(out: Float32): Float32 {
    const [T, H, wide] = out.shape as [number, number, number];
    const width = wide - this.places;
    const rows = convert({ x: out.view([T * H, width], 0, wide), dtype: 'float32' });
    return rows.view([T, H, width], 0, H * width);
  }
}

/** A contiguous [T, H, D] with `count` more values behind each vector. */
function widened(x: Float32, count: number, more: (t: number, h: number) => Float32Array): Float32 {
  const [T, H, D] = x.shape as [number, number, number];
  const wide = D + count;
  const out = Tensor.zeros({ dtype: 'float32', shape: [T, H, wide], device: x.device });
  convertInto({ x: x.view([T * H, D], 0, D), into: out.view([T * H, D], 0, wide) });
  const values = new Float32Array(T * H * count);
  for (let row = 0; row < T * H; row++) values.set(more(Math.floor(row / H), row % H), row * count);
  const added = Tensor.from(values, { dtype: 'float32', shape: [T * H, count], device: x.device });
  convertInto({ x: added, into: out.view([T * H, count], D, wide) });
  return out;
}
