// The plot of `linattn bench --mechanisms`: SVG that a page can show in light and dark.
import { crossoverText, lengthText, type MechanismReport, type MechanismRow } from './bench-mechanisms';

interface Panel {
  readonly title: string;
  readonly values: (row: MechanismRow) => readonly (number | null)[];
  /** Tokens at which a circle stands on the line of softmax. */
  readonly crossover?: (row: MechanismRow) => number | null;
  readonly tick: (value: number) => string;
}

const panelWidth = 430;
const panelHeight = 300;
const [left, top, gap] = [62, 98, 74];
const size = { width: 2 * (left + panelWidth) + 30, height: top + 2 * panelHeight + gap + 46 };

/** Okabe and Ito's palette, which the colour blind can tell apart; grey for the exact one. */
const colours = ['#888888', '#0072b2', '#56b4e9', '#009e73', '#e69f00', '#d55e00', '#cc79a7', '#a58a00', '#7b61c9'];

const time = (nanoseconds: number): string =>
  nanoseconds < 1e3 ? `${nanoseconds} ns` : nanoseconds < 1e6 ? `${nanoseconds / 1e3} us` : `${nanoseconds / 1e6} ms`;

const panels: readonly Panel[] = [
  {
    title: 'prefill: time a token',
    values: ({ prefill }) => prefill,
    crossover: ({ crossover }) => crossover.prefill,
    tick: time,
  },
  {
    title: 'decode: time of the next token',
    values: ({ decode }) => decode,
    crossover: ({ crossover }) => crossover.decode,
    tick: time,
  },
  {
    title: 'relative error against softmax attention',
    values: ({ error, name }) => (name === 'softmax' ? error.map(() => null) : error),
    tick: String,
  },
];

const escaped = (text: string): string =>
  text.replace(/[&<>]/g, (sign) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[sign]!);

const text = (x: number, y: number, content: string, attributes = ''): string =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${attributes}>${escaped(content)}</text>`;

/** Powers of ten around values. */
function decades(values: readonly number[]): [least: number, most: number] {
  return [Math.floor(Math.log10(Math.min(...values))), Math.ceil(Math.log10(Math.max(...values)))];
}

function drawPanel(report: MechanismReport, panel: Panel, x0: number, y0: number): string[] {
  const { lengths, rows } = report;
  const shown = rows
    .flatMap((row) => panel.values(row))
    .filter((value): value is number => value !== null && value > 0);
  const [least, most] = decades(shown);
  const [first, last] = [Math.log2(lengths[0]!), Math.log2(lengths.at(-1)!)];
  const x = (tokens: number) => x0 + ((Math.log2(tokens) - first) / (last - first || 1)) * panelWidth;
  const y = (value: number) => y0 + panelHeight - ((Math.log10(value) - least) / (most - least)) * panelHeight;
  const out = [text(x0, y0 - 12, panel.title, 'class="title"')];
  for (let decade = least; decade <= most; decade++) {
    const at = y(10 ** decade).toFixed(1);
    out.push(`<line class="grid" x1="${x0}" x2="${x0 + panelWidth}" y1="${at}" y2="${at}"/>`);
    out.push(text(x0 - 6, Number(at) + 4, panel.tick(Number((10 ** decade).toPrecision(1))), 'text-anchor="end"'));
  }
  for (const tokens of lengths) {
    const at = x(tokens).toFixed(1);
    out.push(`<line class="grid" x1="${at}" x2="${at}" y1="${y0}" y2="${y0 + panelHeight}"/>`);
    out.push(text(Number(at), y0 + panelHeight + 16, lengthText(tokens), 'text-anchor="middle"'));
  }
  rows.forEach((row, i) => {
    const points = panel
      .values(row)
      .flatMap((value, n) =>
        value === null || value <= 0 ? [] : [`${x(lengths[n]!).toFixed(1)},${y(value).toFixed(1)}`],
      );
    if (points.length === 0) return;
    out.push(`<polyline stroke="${colours[i % colours.length]}" points="${points.join(' ')}"/>`);
    const from = panel.crossover?.(row);
    if (from == null || from === lengths[0]) return;
    const exact = panel.values(rows[0]!) as readonly number[];
    const at = `cx="${x(from).toFixed(1)}" cy="${y(between(lengths, exact, from)).toFixed(1)}"`;
    const title = `<title>${escaped(row.name)} costs less than softmax from ${lengthText(from)} tokens</title>`;
    out.push(`<circle ${at} r="4.5" fill="${colours[i % colours.length]}">${title}</circle>`);
  });
  return out;
}

/** On straight lines between the logarithms. */
function between(lengths: readonly number[], values: readonly number[], tokens: number): number {
  const i = Math.max(
    0,
    lengths.findLastIndex((length) => length <= tokens),
  );
  if (i === lengths.length - 1) return values[i]!;
  const share = Math.log(tokens / lengths[i]!) / Math.log(lengths[i + 1]! / lengths[i]!);
  return values[i]! * (values[i + 1]! / values[i]!) ** share;
}

/** Names, and from where on each costs less than softmax. */
function drawLegend({ rows, lengths }: MechanismReport, x0: number, y0: number): string[] {
  const columns = [x0, x0 + 190, x0 + 310];
  const out = [
    text(columns[0]!, y0 - 12, 'below softmax from', 'class="title"'),
    text(columns[1]!, y0 - 12, 'prefill', 'class="title"'),
    text(columns[2]!, y0 - 12, 'decode', 'class="title"'),
  ];
  rows.forEach(({ name, crossover }, i) => {
    const at = y0 + 16 + i * 26;
    out.push(
      `<line class="key" stroke="${colours[i % colours.length]}" x1="${x0}" x2="${x0 + 26}" y1="${at - 4}" y2="${at - 4}"/>`,
    );
    out.push(text(x0 + 36, at, name));
    if (i === 0) return;
    out.push(text(columns[1]!, at, crossoverText(crossover.prefill, lengths)));
    out.push(text(columns[2]!, at, crossoverText(crossover.decode, lengths)));
  });
  return out;
}

/** Three panels over the number of tokens, all axes logarithmic, and a legend with the crossover points. */
export function mechanismPlot(report: MechanismReport, machine: string): string {
  const { dtype, heads, width } = report;
  const places = [
    [left, top],
    [2 * left + panelWidth, top],
    [left, top + panelHeight + gap],
    [2 * left + panelWidth, top + panelHeight + gap],
  ] as const;
  const body = panels.flatMap((panel, i) => drawPanel(report, panel, ...places[i]!));
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size.width} ${size.height}" role="img">
<title>Mechanisms of linear attention beside softmax attention</title>
<style>
svg { background: #ffffff; font: 13px system-ui, sans-serif; }
text { fill: #333333; }
.small { font-size: 11px; }
.title { font-weight: 600; }
.grid { stroke: #dddddd; stroke-width: 1; }
polyline { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
.key { stroke-width: 4; }
@media (prefers-color-scheme: dark) { svg { background: #16181d; } text { fill: #dddddd; } .grid { stroke: #3a3d45; } }
</style>
${text(left, 24, machine, 'class="small"')}
${text(left, 43, `${heads} heads of ${width}, ${dtype}`)}
${text(left, 62, 'circles: where a mechanism begins to cost less than softmax attention')}
${[...body, ...drawLegend(report, ...places[3]!)].join('\n')}
</svg>
`;
}
