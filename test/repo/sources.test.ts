// The one list of sources, which CMake and node-gyp read, against the tree.
import fs from 'node:fs';
import path from 'node:path';

const root = path.join(__dirname, '..', '..');
const listed = JSON.parse(fs.readFileSync(path.join(root, 'sources.gypi'), 'utf8')).variables as Record<
  string,
  string[]
>;

const inTree = (extension: string) =>
  fs
    .readdirSync(path.join(root, 'native'), { recursive: true, encoding: 'utf8' })
    .map((file) => `native/${file.replaceAll(path.sep, '/')}`)
    .filter((file) => file.endsWith(extension) && !/^native\/(test|cuda\/emulator)\//.test(file))
    .sort();

describe('sources.gypi', () => {
  test('has the two lists and nothing else', () => {
    expect(Object.keys(listed).sort()).toEqual(['cpp_sources', 'cuda_sources']);
    expect(listed.cpp_sources?.length).toBeGreaterThan(0);
  });

  test.each([
    ['cpp_sources', '.cc'],
    ['cuda_sources', '.cu'],
  ])('%s names every %s file once, in order', (list, extension) => {
    expect(listed[list]).toEqual(inTree(extension));
  });
});
