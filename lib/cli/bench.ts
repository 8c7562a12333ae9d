// linattn bench: ops and the whole model on this machine, as shares of what the machine can do in the same run.
import type { Command } from 'commander';
import type { Context } from './context';
import { addModelFlags, addReportFlags, integer, type ModelFlags, type ReportFlags } from './flags';

const defaultLengths = [1, 4, 16, 64, 256, 1024].map((thousands) => thousands * 1024);
const lengthList = (text: string): number[] => text.split(',').map(integer(1));

export interface BenchFlags extends ModelFlags, ReportFlags {
  op?: string;
  ops: boolean;
  context?: boolean;
  quick?: boolean;
  mechanisms?: boolean;
  lengths: number[];
  svg?: string;
}

export function benchCommand(program: Command, context: Context): void {
  const command = program.command('bench').description('measure ops and the model on this machine');
  addModelFlags(command)
    .option('--op <text>', 'only op cases whose name has this')
    .option('--no-ops', 'leave out the op cases')
    .option('--context', 'also: a slice after 2,000 and after 100,000 tokens')
    .option('--quick', 'medians of 3 instead of 15')
    .option('--mechanisms', 'only: error against softmax attention and time a token of each mechanism, over lengths')
    .option('--lengths <list>', 'of --mechanisms: multiples of 1024, ascending', lengthList, defaultLengths)
    .option('--svg <file>', 'of --mechanisms: also a plot')
    .option('--json', 'one JSON object');
  addReportFlags(command);
  command.action(async (flags: BenchFlags) => {
    // Loaded here, since its ops load the addon: help and usage errors work where that does not.
    const { describe, run } = require('./bench-report') as typeof import('./bench-report');
    const report = await run(flags, context);
    context.stdout.write(
      flags.json ? `${JSON.stringify(report, undefined, 1)}\n` : `${describe(report).join('\n\n')}\n`,
    );
  });
}
