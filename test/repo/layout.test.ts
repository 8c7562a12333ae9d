// The walls of the house: who may import whom, and files that stay small. CONTRIBUTING.md has the map.
import path from 'node:path';
import { files, read } from './tree';

// Top to bottom: a file imports from its own folder and from lines below. index is the public surface.
const layers = 'cli server ai-sdk index generation tokenizer model state layers ops tensor binding errors'.split(' ');

const layerOf = (file: string): number => {
  const name = file.split('/')[1]!.replace(/\.m?ts$/, '');
  const layer = layers.indexOf(name);
  if (layer < 0) throw new Error(`${file}: lib/${name} is in no layer; add it to the list in ${__filename}`);
  return layer;
};

const importsOf = (file: string): string[] =>
  [...read(file).matchAll(/\b(?:from|import|require)\s*\(?\s*['"](\.[^'"]*)['"]/g)].map((match) =>
    path.posix.join(path.posix.dirname(file), match[1]!).replace(/\.m?js$/, ''),
  );

describe('lib', () => {
  const sources = files.filter((file) => /^lib\/.*\.m?ts$/.test(file));

  test('has files in every layer that is named', () => {
    expect(sources.length).toBeGreaterThan(0);
    expect(() => sources.map(layerOf)).not.toThrow();
  });

  test('imports point down', () => {
    const imports = sources.flatMap((file) => importsOf(file).map((target) => [file, target] as const));
    expect(imports.length).toBeGreaterThan(0);
    const upward = imports.filter(([file, target]) => target !== 'package.json' && layerOf(target) < layerOf(file));
    expect(upward.map(([file, target]) => `${file} imports ${target}`)).toEqual([]);
  });

  test('only cli prints or sets an exit code', () => {
    const printing = /^(?!\s*(\*|\/)).*(\bconsole\.\w|process\.(stdout|stderr|exit\b|exitCode))/m; // not in comments
    expect(sources.filter((file) => !file.startsWith('lib/cli/') && printing.test(read(file)))).toEqual([]);
  });
});

describe('native', () => {
  const sources = files.filter((file) => /^native\/.*\.(h|cc|inc|cu|cuh)$/.test(file));
  const includesOf = (file: string) =>
    [...read(file).matchAll(/^\s*#include\s*[<"]([^>"]+)[>"]/gm)].map((match) => match[1]!);

  test('napi.h only in the binding', () => {
    const users = sources.filter((file) =>
      includesOf(file).some((header) => /^(napi\.h|node_api\.h|js_native_api)/.test(header)),
    );
    expect(users.length).toBeGreaterThan(0);
    expect(users.filter((file) => !file.startsWith('native/binding/'))).toEqual([]);
  });

  test('core includes no backend and no binding, cpu and cuda not each other', () => {
    const forbidden = {
      core: /^(cpu|cuda|binding)\//,
      ops: /^(cpu|cuda|binding)\//,
      cpu: /^(cuda|binding)\//,
      cuda: /^(cpu|binding)\//,
    };
    const wrong = Object.entries(forbidden).flatMap(([folder, pattern]) =>
      sources
        .filter((file) => file.startsWith(`native/${folder}/`))
        .flatMap((file) =>
          includesOf(file)
            .filter((header) => pattern.test(header))
            .map((header) => `${file} includes ${header}`),
        ),
    );
    expect(wrong).toEqual([]);
  });
});

describe('every file', () => {
  const code = files.filter((file) => /^(lib|native|test|bench|models|examples)\//.test(file));

  test('stays small, or says in its first lines why it is "Longer than" that', () => {
    const limits: [RegExp, number][] = [
      [/\.(m?ts|js)$/, 300],
      [/\.(h|cc|inc|cu|cuh)$/, 400],
    ];
    const long = limits.flatMap(([pattern, limit]) =>
      code
        .filter((file) => pattern.test(file))
        .map((file) => ({ file, lines: read(file).split('\n') }))
        .filter(({ lines }) => lines.length - 1 > limit && !/Longer than/.test(lines.slice(0, 12).join('\n')))
        .map(({ file, lines }) => `${file}: ${lines.length - 1} lines, limit ${limit}`),
    );
    expect(long).toEqual([]);
  });

  test('is named in kebab-case', () => {
    const names = code.filter((file) => /\.(m?ts|js|h|cc|inc|cu|cuh)$/.test(file)).flatMap((file) => file.split('/'));
    expect(names.filter((name) => !/^[a-z0-9]+([-.][a-z0-9]+)*$/.test(name))).toEqual([]);
  });

  test('is focused on nothing and skips nothing', () => {
    const tests = files.filter((file) => /^test\/.*\.test\.ts$/.test(file));
    expect(tests.length).toBeGreaterThan(0);
    expect(tests.filter((file) => /\b(it|test|describe)\.(only|todo)\b|\bf(it|describe)\(/.test(read(file)))).toEqual(
      [],
    );
  });
});
