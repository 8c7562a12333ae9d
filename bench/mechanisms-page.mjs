// Writes what `linattn bench --mechanisms --json` measured into docs/mechanisms.md, between its two marks, and the plots
// beside it, from the records bench/results/mechanisms-<machine>.json. A plot whose record is gone goes too.
//   node bench/mechanisms-page.mjs          (with dist/ built)
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const root = path.join(import.meta.dirname, '..');
const require = createRequire(import.meta.url);
const { mechanismTables } = require('../dist/cli/bench-mechanisms.js');
const { mechanismPlot } = require('../dist/cli/bench-mechanisms-plot.js');
const page = path.join(root, 'docs', 'mechanisms.md');
const marks = ['<!-- measured -->', '<!-- end of what is measured -->'];

const row = (cells) => `| ${cells.join(' | ')} |`;
const table = ({ title, head, rows }) =>
  [`**${title[0].toUpperCase()}${title.slice(1)}**`, '', row(head), row(head.map(() => '---')), ...rows.map(row)].join(
    '\n',
  );

function section(name, { machine, date, command, mechanisms }) {
  const { heads, width, dtype, sliceTokens } = mechanisms;
  return [
    `### ${machine}`,
    '',
    `${date}, \`${command}\`: ${heads} heads of ${width}, ${dtype}, slices of up to ${sliceTokens} tokens.`,
    '',
    `![cost and error over the length](mechanisms-${name}.svg)`,
    '',
    mechanismTables(mechanisms).map(table).join('\n\n'),
  ].join('\n');
}

const folder = path.join(root, 'bench', 'results');
const records = readdirSync(folder)
  .map((file) => [/^mechanisms-(.+)\.json$/.exec(file)?.[1], file])
  .filter(([name]) => name)
  .map(([name, file]) => [name, JSON.parse(readFileSync(path.join(folder, file), 'utf8'))]);
const text = readFileSync(page, 'utf8');
const [from, to] = marks.map((mark) => text.indexOf(mark));
if (from < 0 || to < from) throw new Error(`${page} must have ${marks.join(' and ')}`);
const measured = records.map(([name, record]) => section(name, record)).join('\n\n');
writeFileSync(page, `${text.slice(0, from + marks[0].length)}\n\n${measured}\n\n${text.slice(to)}`);
const docs = path.dirname(page);
const plots = new Map(records.map(([name, record]) => [`mechanisms-${name}.svg`, record]));
for (const file of readdirSync(docs)) {
  if (/^mechanisms-.+\.svg$/.test(file) && !plots.has(file)) rmSync(path.join(docs, file));
}
for (const [file, { machine, mechanisms }] of plots) {
  writeFileSync(path.join(docs, file), mechanismPlot(mechanisms, machine));
}
