// One copy of the library behind require and import, through the exports map of package.json, from dist/.
import { execFileSync } from 'node:child_process';
import { root } from './tree';

const program = `
  import { createRequire } from 'node:module';
  import * as imported from 'linattn';
  const required = createRequire(import.meta.url)('linattn');
  const names = (object) => Object.keys(object).filter((name) => !['default', '__esModule', 'module.exports'].includes(name));
  const differ = names(required).filter((name) => required[name] !== imported[name]);
  console.log(JSON.stringify({ imported: names(imported).sort(), required: names(required).sort(), differ }));
`;

test('require and import give the same names and the same objects', () => {
  const output = execFileSync(process.execPath, ['--input-type=module', '--eval', program], {
    cwd: root,
    encoding: 'utf8',
  });
  const { imported, required, differ } = JSON.parse(output);
  expect(required.length).toBeGreaterThan(0);
  expect(imported).toEqual(required);
  expect(differ).toEqual([]);
});
