// Reads the fields of a JSON body; null is as good as absent, a wrong type is a 400 that names the field.
import type { NumberRule } from '../ops/sampling-table';
import { invalid } from './api-error';

export class Fields {
  readonly values: Record<string, unknown>;

  constructor(body: unknown, param: string | null = null) {
    if (typeof body !== 'object' || body === null || Array.isArray(body)) {
      throw invalid(param, `${param ?? 'the body'} must be a JSON object`);
    }
    this.values = body as Record<string, unknown>;
  }

  /** undefined when the field is absent or null. */
  get(name: string): unknown {
    return (Object.hasOwn(this.values, name) ? this.values[name] : undefined) ?? undefined;
  }

  string(name: string): string | undefined {
    return this.typed(name, 'a string', (value) => typeof value === 'string') as string | undefined;
  }

  choice<T extends string>(name: string, choices: readonly T[]): T | undefined {
    const isOne = (value: unknown) => choices.includes(value as T);
    return this.typed(name, choices.join(' or '), isOne) as T | undefined;
  }

  boolean(name: string): boolean | undefined {
    return this.typed(name, 'true or false', (value) => typeof value === 'boolean') as boolean | undefined;
  }

  number(name: string, { wanted, holds }: NumberRule): number | undefined {
    return this.typed(name, wanted, (value) => typeof value === 'number' && holds(value)) as number | undefined;
  }

  whole(name: string, least: number, most: number): number | undefined {
    const isWhole = (value: unknown) =>
      Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most;
    return this.typed(name, `a whole number from ${least} to ${most}`, isWhole) as number | undefined;
  }

  object(name: string): Fields | undefined {
    const value = this.get(name);
    return value === undefined ? undefined : new Fields(value, name);
  }

  private typed(name: string, what: string, holds: (value: unknown) => boolean): unknown {
    const value = this.get(name);
    if (value !== undefined && !holds(value)) {
      const got = typeof value === 'number' ? value : Array.isArray(value) ? 'an array' : typeof value;
      throw invalid(name, `${name} must be ${what}, got ${got}`);
    }
    return value;
  }
}
