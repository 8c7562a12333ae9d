#!/usr/bin/env node
// The command line.
import { loadTokenizer } from '../tokenizer/tokenizer';
import type { Context } from './context';
import { run } from './run';
import { Interrupts } from './signals';

const interrupts = new Interrupts();
const raise = (signal: NodeJS.Signals) => process.kill(process.pid, signal);
const stopListening = interrupts.listen(process, raise);
const context: Context = {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  interrupts,
  library() {
    const { devices, load } = require('../index') as typeof import('../index');
    const { defaultModel } = require('../generation/load') as typeof import('../generation/load');
    const { readModelFolder } = require('../generation/model-folder') as typeof import('../generation/model-folder');
    return {
      ...{ devices, load, loadTokenizer, readModelFolder, defaultModel },
      get Server() {
        return (require('../server/server') as typeof import('../server/server')).Server;
      },
    };
  },
};

run(process.argv.slice(2), context).then((outcome) => {
  stopListening();
  if ('signal' in outcome) raise(outcome.signal);
  else process.exitCode = outcome.exitCode;
});
