// Processes with a group of their own: what they start is killed with them, and they with this one.
const { spawn } = require('node:child_process');

const running = new Set();

function spawnGroup(command, args, options) {
  const child = spawn(command, args, { ...options, detached: true });
  running.add(child);
  child.on('close', () => running.delete(child));
  return child;
}

function killGroup({ pid }) {
  if (pid === undefined) return; // it could not begin
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if (error.code !== 'ESRCH') throw error; // it has ended
  }
}

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    for (const child of running) killGroup(child);
    process.kill(process.pid, signal);
  });
}

/** The test files that jest finds for patterns; there has to be one. */
function filesOf(list, patterns) {
  const files = list.trim().split('\n').filter(Boolean);
  if (files.length > 0) return files;
  console.error(`no test file matches ${patterns.join(' ')}`);
  process.exit(1);
}

module.exports = { filesOf, killGroup, spawnGroup };
