// Saves two states of the default model to argv[2] in turns until it is killed; prints a line when the first is there.
const path = require('node:path');
const { load } = require(path.join(__dirname, '..', '..', '..'));

async function main() {
  const model = await load({ maxSequences: 1, maxSnapshots: 2 });
  const session = model.createSession();
  const snapshots = [];
  for (const append of ['It was a dark and stormy night.', ' The rain fell in torrents.']) {
    await session.prefill({ append });
    snapshots.push(await session.snapshot());
  }
  for (let i = 0; ; i++) {
    await snapshots[i % 2].save(process.argv[2]);
    if (i === 0) console.log('saved');
  }
}
main();
