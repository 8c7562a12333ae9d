// linattn info: the version, what this machine offers and why something is missing, and what a model is made of.
import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import type { Device, ModelInfo } from '../index';
import type { Context } from './context';
import { addModelFlags, addReportFlags, environment, type ModelFlags, type ReportFlags } from './flags';
import { bytesText } from './output';
import { version } from './version';

interface Flags extends ModelFlags, ReportFlags {}

interface Info {
  readonly version: string;
  readonly node: string;
  readonly platform: string;
  readonly devices: readonly (Pick<Device, 'name' | 'description' | 'unavailable'> & { readonly memory?: object })[];
  /** The variables of linattn that are set. */
  readonly environment: Readonly<Record<string, string>>;
  readonly model?: ModelInfo & { readonly folder: string };
}

export function infoCommand(program: Command, context: Context): void {
  const command = program
    .command('info')
    .description('version, devices and why one is missing, what the model is made of');
  addModelFlags(command).option('--json', 'one JSON object');
  addReportFlags(command);
  command.action(async (flags: Flags) => {
    const info = await readInfo(flags, context);
    context.stdout.write(flags.json ? `${JSON.stringify(info)}\n` : `${describe(info).join('\n')}\n`);
  });
}

async function readInfo(flags: Flags, context: Context): Promise<Info> {
  const { devices, readModelFolder, defaultModel } = context.library();
  const folder = flags.model ?? (existsSync(defaultModel) ? defaultModel : undefined);
  const names = Object.keys(environment).filter((name) => context.env[name]);
  return {
    version,
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    devices: devices().map(({ name, description, unavailable, memory }) =>
      unavailable === undefined ? { name, description, memory: memory() } : { name, description, unavailable },
    ),
    environment: Object.fromEntries(names.map((name) => [name, context.env[name]!])),
    ...(folder !== undefined && { model: { folder, ...(await readModelFolder(folder, flags)).info } }),
  };
}

function describe(info: Info): string[] {
  const lines = [`linattn ${info.version} (Node ${info.node}, ${info.platform})`];
  for (const { name, description, unavailable } of info.devices) {
    lines.push(`${name}: ${unavailable === undefined ? description : `not available: ${unavailable}`}`);
  }
  for (const [name, value] of Object.entries(info.environment)) lines.push(`${name}=${value}`);
  const { model } = info;
  if (model) {
    const count = new Intl.NumberFormat('en').format(model.parameters);
    lines.push(
      `model: ${model.folder}`,
      `  ${model.family}, ${count} parameters, ${model.dtype} on ${model.device}, vocabulary of ${model.vocabularySize}`,
      `  state ${bytesText(model.stateBytes)} a sequence, keys and values ${bytesText(model.kvBytesPerToken)} a token`,
    );
  }
  return lines;
}
