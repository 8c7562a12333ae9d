// A call with each of its arguments, and each of their fields, in turn replaced by what the types forbid.
import { LinattnError } from '../../lib/errors';
import { Tensor } from '../../lib/tensor/tensor';

export interface Call {
  /** Arguments that are right. */
  readonly args: () => unknown[];
  /** What may be absent: a position, or the name of a field. */
  readonly optional?: readonly (string | number)[];
}

const isPlain = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;

type Path = readonly (string | number)[];

/** The arguments, and their fields. */
function paths(value: unknown, path: Path = []): Path[] {
  const inner = path.length === 0 || isPlain(value) ? Object.entries(value as object) : [];
  const own = path.length === 0 ? [] : [path];
  return [...own, ...inner.flatMap(([key, item]) => paths(item, [...path, path.length === 0 ? Number(key) : key]))];
}

const at = (args: unknown[], path: Path): unknown =>
  path.reduce((value, key) => (value as Record<string | number, unknown>)[key], args as unknown);

const wrong: readonly unknown[] = [undefined, null, 3, 'x', {}, []];

function mayBe(right: unknown, value: unknown): boolean {
  if (isPlain(right) && isPlain(value)) return true; // its fields are tried one by one
  if (typeof right === 'number') return value === 3;
  return typeof right === 'boolean' && value === 3;
}

/** Tests that each is a LinattnError whose message begins with one of these names, and has the name of the field. */
export function describeArguments(
  begins: RegExp,
  { args, optional = [] }: Call,
  call: (...args: unknown[]) => unknown,
) {
  const run = (path: Path, value: unknown): unknown => {
    const given = args();
    const holder = at(given, path.slice(0, -1)) as Record<string | number, unknown>;
    holder[path.at(-1)!] = value;
    try {
      call(...given);
    } catch (error) {
      return error;
    }
    return undefined;
  };

  test('takes its arguments', () => {
    expect(() => call(...args())).not.toThrow();
  });

  test.each(paths(args()).map((path) => [path.join('.'), path] as const))('argument %s', (_, path) => {
    const right = at(args(), path);
    const key = path.at(-1)!;
    for (const value of wrong) {
      if (mayBe(right, value)) continue;
      const error = run(path, value);
      if (value === undefined && optional.includes(key) && error === undefined) continue;
      expect({ value, error }).toEqual({ value, error: expect.any(LinattnError) });
      if (value === undefined && optional.includes(key)) continue; // others need it
      const { message } = error as LinattnError;
      expect(message).toMatch(begins);
      if (typeof key === 'string') expect(message).toContain(key);
    }
    if (right instanceof Tensor) {
      right.dispose();
      const error = run(path, right);
      expect(error).toMatchObject({ code: 'ERR_DISPOSED' });
      expect((error as Error).message).toMatch(begins);
    }
  });
}
