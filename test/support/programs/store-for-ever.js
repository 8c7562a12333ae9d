// Sets values of 2 MiB, each of one byte, in the folder argv[2] until it is killed; prints a line after each.
const path = require('node:path');
const { DirectoryStore } = require(path.join(__dirname, '..', '..', '..'));

async function main() {
  const store = new DirectoryStore(process.argv[2]);
  for (let i = 0; ; i++) {
    await store.set(`key-${i % 8}`, new Uint8Array(2 ** 21).fill(i));
    process.stdout.write('.\n');
  }
}
main();
