import { stateSlots } from '../../lib/state/state-slots';

const counts = { sequences: 1000, snapshots: 7, cached: 10 };

test('a sequence keeps two checkpoints where memory has room, one at least', () => {
  expect(stateSlots(counts, 100, 1e9)).toBe(4017);
  expect(stateSlots(counts, 100, 350_099)).toBe(3500);
  expect(stateSlots(counts, 100, 1000)).toBe(3017);
});

test('a model without states has slots for its page tables', () => {
  expect(stateSlots(counts, 0, 1e9)).toBe(4017);
});
