// A jest reporter that adds a line of JSON to LINATTN_RESULTS as soon as a test ends, and one as soon as its file does, so
// that a run that is cut off has told what ended before.
const fs = require('node:fs');
const path = require('node:path');

const add = (line) => fs.appendFileSync(process.env.LINATTN_RESULTS, `${JSON.stringify(line)}\n`);
const fileOf = (test) => path.relative(process.cwd(), test.path);

module.exports = class ResultsReporter {
  onTestCaseResult(test, { fullName, status, duration, failureMessages }) {
    if (status !== 'passed' && status !== 'failed') return;
    add({ file: fileOf(test), test: fullName, status, ms: duration, message: failureMessages.join('\n') });
  }
  onTestResult(test, { perfStats, testExecError, failureMessage }) {
    const seconds = (perfStats.end - perfStats.start) / 1000;
    add({ file: fileOf(test), seconds, error: testExecError ? failureMessage : undefined });
  }
};
