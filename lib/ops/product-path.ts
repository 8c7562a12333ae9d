// Which kernels of a GPU take the rows of a matmul. Each kind adds in an order of its own, so a row has the same bits in any
// company only where the kind does not follow from the number of rows.
const paths = { fastest: 0, fewRows: 1, manyRows: 2 } as const;

/** fastest: the kind that is for so many rows. */
export type ProductPath = keyof typeof paths;

let current: ProductPath = 'fastest';

/** The products that `fn` enqueues take this path. `fn` is synchronous. */
export function withProductPath<T>(path: ProductPath, fn: () => T): T {
  const before = current;
  current = path;
  try {
    return fn();
  } finally {
    current = before;
  }
}

/** The value of the op's field. */
export const productPath = (): number => paths[current];
