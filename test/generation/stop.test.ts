// Stop strings in streamed text: the text ends before them however it was cut, and no part of one is ever given out.
import fc from 'fast-check';
import { StopMatcher } from '../../lib/generation/stop';

const run = (stops: string | readonly string[], pieces: readonly string[]) => {
  const matcher = new StopMatcher(stops);
  const texts = pieces.map((piece) => matcher.push(piece));
  const rest = matcher.flush();
  return { texts, text: texts.join('') + rest, matched: matcher.matched };
};

/** One character at a time: the first stop string that the text ends with. */
function reference(stops: readonly string[], text: string): { text: string; matched: string | undefined } {
  for (let end = 1; end <= text.length; end++) {
    const complete = stops.filter((stop) => text.slice(0, end).endsWith(stop)).sort((a, b) => b.length - a.length)[0];
    if (complete !== undefined) return { text: text.slice(0, end - complete.length), matched: complete };
  }
  return { text, matched: undefined };
}

test('without stop strings the text passes at once', () => {
  expect(run([], ['a', '', 'b'])).toEqual({ texts: ['a', '', 'b'], text: 'ab', matched: undefined });
});

test('text is held back only while it could begin a stop string', () => {
  expect(run('END', ['x', ' E', 'N', 'x E', 'ND', 'more']).texts).toEqual(['x', ' ', '', 'ENx ', '', '']);
  expect(run('END', ['x E', 'N']).text).toBe('x EN');
});

test('the text ends where the stop string began', () => {
  expect(run('\n\n', ['one\ntwo\n', '\nthree'])).toEqual({
    texts: ['one\ntwo', ''],
    text: 'one\ntwo',
    matched: '\n\n',
  });
});

test('a stop string that begins inside a failed one is found', () => {
  expect(run('aab', ['a', 'a', 'a', 'b'])).toMatchObject({ text: 'a', matched: 'aab' });
  expect(run(['abcx', 'bcd'], ['ab', 'cd'])).toMatchObject({ text: 'a', matched: 'bcd' });
});

test('of several, the first complete one counts; of two complete at once, the longer', () => {
  expect(run(['abc', 'b'], ['abc'])).toMatchObject({ text: 'a', matched: 'b' });
  expect(run(['b', 'ab'], ['xab'])).toMatchObject({ text: 'x', matched: 'ab' });
});

test('any cut of the text gives the same, and what is given out is certain', () => {
  const word = fc.string({ unit: fc.constantFrom('a', 'b', '\n'), minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(
      fc.array(word, { minLength: 1, maxLength: 3 }),
      fc.array(fc.string({ unit: fc.constantFrom('a', 'b', '\n', 'c'), maxLength: 5 }), { maxLength: 12 }),
      (stops, pieces) => {
        const expected = reference(stops, pieces.join(''));
        const { texts, text, matched } = run(stops, pieces);
        expect({ text, matched }).toEqual(expected);
        expect(expected.text.startsWith(texts.join(''))).toBe(true);
        // Nothing is held back without need: some stop string begins with all of it.
        const held = expected.text.slice(texts.join('').length);
        if (matched === undefined) expect(held === '' || stops.some((stop) => stop.startsWith(held))).toBe(true);
      },
    ),
    { numRuns: 2000 },
  );
});

test.each([[''], [['a', '']], [[1]], [{}]])('%j is refused', (stop) => {
  expect(() => new StopMatcher(stop as string[])).toThrow(
    expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringContaining('generate: stop must be') }),
  );
});
