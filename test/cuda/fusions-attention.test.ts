// Attention of one token in a recorded graph, with the norms and rotations in front of it, has the bits of its ops one by
// one.
import { gatherRows } from '../../lib/ops/gather-rows';
import { rmsNorm } from '../../lib/ops/rms-norm';
import { rope } from '../../lib/ops/rope';
import { packedSequences, Sequences } from '../../lib/ops/sequences';
import { softmaxAttention } from '../../lib/ops/softmax-attention';
import { deviceOf } from '../../lib/tensor/device';
import { scope } from '../../lib/tensor/scope';
import { Tensor } from '../../lib/tensor/tensor';
import { rounded, seeded, tensorOf } from '../support/arrays';
import { device } from '../support/device';
import { bitsOf } from '../support/linear-attention';
import { expectSameBits, type Half, normal } from '../support/recorded';

interface AttentionOfToken {
  readonly positions: Tensor<'int32'>;
  readonly tableRows: Tensor<'int32'>;
  readonly pageTable: Tensor<'int32'>;
  readonly sequences: Sequences;
  /** Those of both layers, all values `value` or random ones. */
  pages(value?: number): Tensor<Half>;
  enqueue(states: Tensor[], positions?: Tensor<'int32'>, tableRows?: Tensor<'int32'>): Tensor[];
}

/** Two layers of attention of one token: norms, rotations and softmaxAttention. */
function attentionOfToken(options: {
  readonly dtype: Half;
  readonly heads: readonly [number, number];
  readonly D: number;
  readonly rotary: number;
  /** Greatest position. */
  readonly most: number;
  readonly window?: number;
  readonly tableRow?: number;
  readonly tablePages?: number;
  /** Pages that there are, the last one for tokens near `most` alone: several entries of the table have the same one. */
  readonly poolPages?: number;
  readonly extras?: boolean;
}): AttentionOfToken {
  const { dtype, heads, D, rotary, most, window = 0, tableRow = 1, extras = false } = options;
  const [queries, keys] = heads;
  const [pageTokens, layers] = [16, 2];
  const { tablePages = 7 * Math.floor(most / pageTokens / 7) + 8 } = options;
  const stride = (queries + 2 * keys) * D + 8;
  const input = normal(1, [1, stride], dtype);
  const norms = [normal(2, [D], 'float32'), normal(3, [D], 'float32')];
  const inverseFrequencies = tensorOf(rounded(seeded(4).uniform([rotary / 2]), 'float32'), 'float32');
  const packed = packedSequences([1]);
  const { poolPages = tablePages } = options;
  const order = Array.from({ length: 2 * tablePages }, (_, i) =>
    poolPages === tablePages
      ? (i * 7 + 3) % tablePages
      : i % tablePages < Math.floor(most / pageTokens)
        ? (i * 7 + 3) % (poolPages - 1)
        : poolPages - 1,
  );
  const pageTable = Tensor.from(Int32Array.from(order), { dtype: 'int32', shape: [2, tablePages], device });
  const rows = Tensor.from(Int32Array.of(tableRow), { dtype: 'int32', shape: [1], device });
  const pageShape = [2, pageTokens, keys, D];
  const page = pageShape.reduce((product, size) => product * size);
  const some = rounded(seeded(5).normal([4099]), dtype).data;
  const optional = extras
    ? { sinks: normal(6, [queries], 'float32'), alibiSlopes: normal(7, [queries], 'float32'), statistics: true }
    : {};
  return {
    positions: packed.positions,
    tableRows: rows,
    pageTable,
    sequences: packed,
    pages(value) {
      const shape = [poolPages, layers * page];
      const data = new Float64Array(poolPages * layers * page);
      for (let i = 0; i < data.length; i++) data[i] = value ?? some[i % some.length]!;
      return tensorOf({ shape, data }, dtype);
    },
    enqueue: ([pages], positions = packed.positions, tableRows = rows) => {
      const sequences = new Sequences({ ...packed.record, positions });
      return Array.from({ length: layers }, (_, layer) => {
        const [q, k] = heads.map((count, i) => {
          const x = input.view([1, count, D], i * queries * D, stride);
          const normed = rmsNorm({ x, weight: norms[i]!, eps: 1e-6, zeroCentred: true });
          return [normed, rope({ x: normed, inverseFrequencies, pairing: 'half', sequences })] as const;
        });
        const attended = softmaxAttention({
          q: q![1],
          k: k![1],
          v: input.view([1, keys, D], (queries + keys) * D, stride),
          pages: (pages as Tensor<Half>).view([poolPages, ...pageShape], layer * page, layers * page),
          pageTable,
          tableRows,
          sequences,
          scale: D ** -0.5,
          window,
          ...optional,
        });
        return [...q!, ...k!, attended.out, ...(extras ? [attended.rowMax!, attended.rowSum!] : [])];
      }).flat();
    },
  };
}

describe.each(['bfloat16', 'float16'] as const)('%s', (dtype) => {
  test.each([
    { position: 1100, heads: [8, 2], D: 256, rotary: 64 },
    { position: 0, heads: [8, 2], D: 256, rotary: 64 },
    { position: 63, heads: [4, 2], D: 128, rotary: 128 },
    { position: 64, heads: [3, 1], D: 64, rotary: 32 },
    { position: 2500, heads: [2, 1], D: 256, rotary: 64 },
    { position: 2239, heads: [4, 2], D: 128, rotary: 64 },
    { position: 9000, heads: [16, 1], D: 64, rotary: 16 },
    // Splits of more keys than there is room for.
    { position: 2060, heads: [8, 8], D: 256, rotary: 64, poolPages: 18 },
    { position: 2060, heads: [16, 16], D: 64, rotary: 64, poolPages: 18 },
    { position: 2200, heads: [16, 16], D: 128, rotary: 64, window: 2100, poolPages: 18 },
    { position: 700, heads: [4, 1], D: 128, rotary: 128, window: 300, tablePages: 30 },
    { position: 700, heads: [4, 1], D: 128, rotary: 128, tableRow: -1 },
    { position: 130, heads: [4, 1], D: 64, rotary: 64, extras: true },
  ])('attention of one token: %j', async ({ position, heads, ...more }) => {
    const attention = attentionOfToken({ dtype, heads: heads as [number, number], most: position, ...more });
    attention.positions.write(Int32Array.of(position));
    await expectSameBits(() => [attention.pages()], attention.enqueue);
  });

  test.each([
    { D: 256, places: [62, 63, 64, 65, 1399, 1400, 7, 8], empty: false },
    { D: 64, places: Array.from({ length: 67 }, (_, position) => position), empty: true },
  ])('attention of a token whose place is known late: %j', async ({ D, places, empty }) => {
    // What the kernel in front writes, and not what was there before, says where the keys are.
    const attention = attentionOfToken({ dtype, heads: [4, 2], D, rotary: 64, most: Math.max(...places) });
    const [position, row, first] = [0, 0, 0].map((value) =>
      Tensor.from(Int32Array.of(value), { dtype: 'int32', shape: [1], device }),
    ) as [Tensor<'int32'>, Tensor<'int32'>, Tensor<'int32'>];
    const now = (x: Tensor<'int32'>) => gatherRows({ x: x.view([1, 1], 0, 1), rows: first }).view([1], 0, 1);
    const pages = [0, 1].map(() => attention.pages(empty ? Number.NaN : undefined)) as [Tensor<Half>, Tensor<Half>];
    const enqueue = (own: Tensor<Half>) => attention.enqueue([own], now(position), now(row));
    let recorded: Tensor[] = [];
    const graph = deviceOf(device).capture(() => {
      recorded = scope(() => enqueue(pages[0]));
    });
    graph.replay(); // op by op
    enqueue(pages[1]);
    for (const [n, place] of places.entries()) {
      position.write(Int32Array.of(place));
      row.write(Int32Array.of(!empty && n % 3 === 1 ? 1 : 0));
      graph.replay();
      const made = enqueue(pages[1]);
      expect((await bitsOf([...recorded, pages[0]])).equals(await bitsOf([...made, pages[1]]))).toBe(true);
    }
    graph.dispose();
  });

  test.each<[string, (attention: AttentionOfToken) => void]>([
    ['a page that is not there', ({ pageTable }) => pageTable.write(Int32Array.of(1000), 3)],
    ['a late page that is not there', ({ pageTable }) => pageTable.write(Int32Array.of(-1), 7)],
    ['no page for the token', ({ pageTable }) => pageTable.write(Int32Array.of(-1), 131)],
    ['a table row that is not there', ({ tableRows }) => tableRows.write(Int32Array.of(2))],
    ['a position before 0', ({ positions }) => positions.write(Int32Array.of(-1))],
    ['a position behind the table', ({ positions }) => positions.write(Int32Array.of(100_000))],
    ['offsets without the token', ({ sequences }) => sequences.offsets.write(Int32Array.of(0, 2))],
  ])('attention of one token reports %s', async (_, spoil) => {
    const attention = attentionOfToken({ dtype, heads: [2, 1], D: 256, rotary: 64, most: 2100, tableRow: 0 });
    attention.positions.write(Int32Array.of(2100));
    const pages = attention.pages();
    const problem = (made: Tensor[]) => made[0]!.read().then(() => undefined, String);
    let recorded: Tensor[] = [];
    const graph = deviceOf(device).capture(() => {
      recorded = scope(() => attention.enqueue([pages]));
    });
    for (const _ of [0, 1]) graph.replay();
    expect(await problem(recorded)).toBeUndefined();
    spoil(attention);
    const wanted = await problem(attention.enqueue([pages]));
    expect(wanted).toMatch(/^LinattnError: .*softmaxAttention: /);
    graph.replay();
    expect(await problem(recorded)).toBe(wanted);
    graph.dispose();
  });
});
