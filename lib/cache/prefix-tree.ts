// Texts that begin the same, as a radix tree over their tokens: what they share is kept once, and what is found begins the
// asked text token by token.

export interface PrefixNode<E> {
  /** Tokens from the parent's end to its own. */
  edge: Int32Array;
  parent: PrefixNode<E> | undefined;
  /** Tokens from the root. */
  readonly length: number;
  /** By the first token of their edges. */
  readonly children: Map<number, PrefixNode<E>>;
  entry: E | undefined;
}

/** How many tokens from the start are the same. */
export function commonLength(a: Int32Array, b: Int32Array): number {
  const most = Math.min(a.length, b.length);
  const [first, second] = [a, b].map(({ buffer, byteOffset }) => new Uint8Array(buffer, byteOffset, 4 * most));
  if (Buffer.compare(first!, second!) === 0) return most; // at the speed of memory
  let same = 0;
  while (same < most && a[same] === b[same]) same++;
  return same;
}

function joined(first: Int32Array, second: Int32Array): Int32Array {
  const all = new Int32Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}

export class PrefixTree<E> {
  private readonly root: PrefixNode<E> = {
    ...{ edge: new Int32Array(0), parent: undefined, length: 0, children: new Map(), entry: undefined },
  };

  /** The entries at beginnings of `tokens`, the shortest first, and how many tokens some text of the tree shares with it. */
  match(tokens: Int32Array): { readonly entries: E[]; readonly shared: number } {
    const entries: E[] = [];
    let node = this.root;
    for (;;) {
      const child = node.children.get(tokens[node.length]!);
      if (child === undefined) return { entries, shared: node.length };
      const same = commonLength(child.edge, tokens.subarray(node.length));
      if (same < child.edge.length) return { entries, shared: node.length + same };
      node = child;
      if (node.entry !== undefined) entries.push(node.entry);
    }
  }

  /** The node at the end of `tokens`, made where there is none. One without an entry is to get one, or to be deleted. */
  nodeAt(tokens: Int32Array): PrefixNode<E> {
    let node = this.root;
    while (node.length < tokens.length) {
      const rest = tokens.subarray(node.length);
      const child = node.children.get(rest[0]!);
      if (child === undefined) return this.add(node, rest.slice());
      const same = commonLength(child.edge, rest);
      node = same === child.edge.length ? child : this.split(child, same);
    }
    return node;
  }

  private add(parent: PrefixNode<E>, edge: Int32Array): PrefixNode<E> {
    const node = { edge, parent, length: parent.length + edge.length, children: new Map(), entry: undefined };
    parent.children.set(edge[0]!, node);
    return node;
  }

  /** A new node above `lower`, `same` tokens into its edge. */
  private split(lower: PrefixNode<E>, same: number): PrefixNode<E> {
    const upper = this.add(lower.parent!, lower.edge.slice(0, same));
    lower.edge = lower.edge.slice(same);
    lower.parent = upper;
    upper.children.set(lower.edge[0]!, lower);
    return upper;
  }

  /** The tokens that end at a node. */
  tokensOf(node: PrefixNode<E>): Int32Array {
    const tokens = new Int32Array(node.length);
    for (let at = node; at.parent !== undefined; at = at.parent) tokens.set(at.edge, at.parent.length);
    return tokens;
  }

  /** Takes the entry of a node away, and the nodes that no entry needs any more. */
  delete(node: PrefixNode<E>): void {
    node.entry = undefined;
    let at = node;
    while (at.parent !== undefined && at.entry === undefined && at.children.size === 0) {
      at.parent.children.delete(at.edge[0]!);
      at = at.parent;
    }
    if (at.parent === undefined || at.entry !== undefined || at.children.size !== 1) return;
    const [only] = at.children.values();
    only!.edge = joined(at.edge, only!.edge);
    only!.parent = at.parent;
    at.parent.children.set(only!.edge[0]!, only!);
  }
}
