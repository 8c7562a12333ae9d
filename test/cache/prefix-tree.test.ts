// The radix tree against the plain way: a list of texts, compared one by one.
import fc from 'fast-check';
import { PrefixTree } from '../../lib/cache/prefix-tree';

const text = fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 12 });
const begins = (whole: readonly number[], start: readonly number[]) => start.every((token, i) => whole[i] === token);

test('finds the entries that begin a text, shortest first, and how far any text goes with it', () => {
  const change = fc.record({ tokens: text, remove: fc.boolean() });
  fc.assert(
    fc.property(
      fc.array(change, { maxLength: 30 }),
      fc.array(text, { minLength: 1, maxLength: 5 }),
      (changes, asked) => {
        const tree = new PrefixTree<string>();
        const plain = new Map<string, number[]>();
        for (const { tokens, remove } of changes) {
          const name = tokens.join();
          const node = tree.nodeAt(Int32Array.from(tokens));
          expect([...tree.tokensOf(node)]).toEqual(tokens);
          if (remove) {
            tree.delete(node);
            plain.delete(name);
          } else {
            node.entry = name;
            plain.set(name, tokens);
          }
        }
        for (const tokens of asked) {
          const { entries, shared } = tree.match(Int32Array.from(tokens));
          const wanted = [...plain.values()].filter((one) => begins(tokens, one)).sort((a, b) => a.length - b.length);
          expect(entries).toEqual(wanted.map((one) => one.join()));
          const most = (one: number[]) => one.findIndex((token, i) => token !== tokens[i]);
          const lengths = [...plain.values()].map((one) => (most(one) < 0 ? one.length : most(one)));
          expect(shared).toBe(Math.max(0, ...lengths.map((length) => Math.min(length, tokens.length))));
        }
      },
    ),
  );
});

test('without entries nothing is left', () => {
  const tree = new PrefixTree<string>();
  const nodes = ['1 2 3', '1 2', '1 2 4 5', '7'].map((tokens) => {
    const node = tree.nodeAt(Int32Array.from(tokens.split(' ').map(Number)));
    node.entry = tokens;
    return node;
  });
  for (const node of nodes) tree.delete(node);
  const { root } = tree as unknown as { root: { children: Map<number, unknown> } };
  expect(root.children.size).toBe(0);
});
