// Standard normal numbers for bench cases, the same on every run.
import { philox, unitInterval } from '../ops/philox';

const tableSize = 2 ** 16;

/** Box and Muller. */
function normalTable(): Float32Array {
  const table = new Float32Array(tableSize);
  for (let i = 0; i < tableSize; i += 2) {
    const words = philox([i, 0, 0, 0], [20250901, 0]);
    const radius = Math.sqrt(-2 * Math.log(1 - unitInterval(words[0], words[1])));
    const angle = 2 * Math.PI * unitInterval(words[2], words[3]);
    table[i] = radius * Math.cos(angle);
    table[i + 1] = radius * Math.sin(angle);
  }
  return table;
}

/** Draws from a table of 65,536 of them. */
export class NormalNumbers {
  private readonly table = normalTable();
  private state = 1;

  next(): number {
    this.state = (Math.imul(this.state, 1664525) + 1013904223) >>> 0;
    return this.table[this.state >>> 16]!;
  }

  array(count: number): Float32Array {
    return new Float32Array(count).map(() => this.next());
  }
}
