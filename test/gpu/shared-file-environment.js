// A jest environment for several processes that run one test file: each takes the tests that no other has taken. What is
// taken lies in the folder LINATTN_TAKEN, a file a test with its name; the file `total` says how many there are to take.
const fs = require('node:fs');
const path = require('node:path');
const { TestEnvironment } = require('jest-environment-node');

const folder = process.env.LINATTN_TAKEN;

function nameOf(test) {
  const names = [];
  for (let at = test; at.parent; at = at.parent) names.unshift(at.name);
  return names.join(' ');
}

function isLeftOut(test, { testNamePattern }) {
  for (let at = test; at; at = at.parent) if (at.mode === 'skip' || at.mode === 'todo') return true;
  return testNamePattern ? !testNamePattern.test(nameOf(test)) : false;
}

const testsOf = (block) => block.children.flatMap((child) => (child.type === 'test' ? [child] : testsOf(child)));

function take(index, name) {
  try {
    fs.writeFileSync(path.join(folder, String(index)), name, { flag: 'wx' });
    return true;
  } catch (error) {
    if (error.code === 'EEXIST') return false;
    throw error;
  }
}

module.exports = class SharedFileEnvironment extends TestEnvironment {
  handleTestEvent({ name, test }, state) {
    if (name === 'run_start') {
      this.tests = testsOf(state.rootDescribeBlock).filter((one) => !isLeftOut(one, state));
      fs.writeFileSync(path.join(folder, 'total'), String(this.tests.length));
    }
    if (name !== 'test_start') return;
    const index = this.tests.indexOf(test);
    if (index >= 0 && !take(index, nameOf(test))) test.mode = 'skip';
  }
};
