// What kernels find wrong in the values of tensors (a slot that is not there, say), which the host cannot see when it
// launches them. A kernel skips what is wrong, so that nothing is read or written out of bounds, and reports it here;
// the first read that is enqueued behind it rejects with all of it.
#pragma once
#include <cstdint>
#include <memory>

#include "core/error.h"
#include "cuda/device/platform.cuh"

namespace linattn::cuda {

enum class FaultKind : int32_t {
  kNone = 0,
  kRange,           // name[index] must be in [low, limit), got value
  kFromTo,          // name[index] must be from low to limit, got value
  kBetween,         // name[index] must be in [low, limit], got value
  kBelow,           // name[index] must be below limit and at least -1, got value
  kTwice,           // name[index]: slot `value` is written twice
  kRepeats,         // name[index] repeats slot `value`
  kInBoth,          // slot `value` is in both from and to
  kReadAndWritten,  // kReadSlots[index]: slot `value` is written by row `low`; another name: kReadSlots[low] reads it
  kOffsets,         // the row's offsets [low, value) lie outside of `limit` tokens; kSequenceOffsets: offsets[index]
  kTooFew,          // kCheckpointSlots: an entry for each of `limit` positions, got `value`; kPageTable: sequence
                    // `index` needs `limit` pages at position `low`, a row has `value`
  kPage,            // the page table's row `index`, column `column`: no page below `limit` for the tokens from `low` of
                    // sequence `sequence`, got value
  kStepRow,         // rows must be below limit, got value
  kInvalid,         // name[index] holds NaN or +infinity
  kNoToken,         // name[index]: no token is left to choose
};

// Of the tensor or list that is wrong; faults.cu has the words.
enum class FaultName : int32_t {
  kRows,
  kReadSlots,
  kWriteSlots,
  kPositions,
  kCheckpointSlots,
  kTableRows,
  kPageTable,
  kIds,
  kTokens,
  kFrom,
  kTo,
  kLogits,
  kOffsets,
  kSequenceOffsets,
};

struct Fault {
  int32_t kind, name, index, value, low, limit, column, sequence;
  int32_t writing;  // 1 while a thread writes the others
};

// The first report stays, but for the same of a lower index: so an op says the same each time.
__device__ inline void report(Fault* fault, FaultKind kind, FaultName name, int index = 0, int value = 0, int low = 0,
                              int limit = 0, int column = 0, int sequence = 0) {
  volatile Fault* seen = fault;
  const auto counts = [&] {
    if (seen->kind == 0) return true;
    return seen->kind == static_cast<int>(kind) && seen->name == static_cast<int>(name) && seen->index > index;
  };
  for (bool done = false; !done;) {
    if (!counts()) return;
    if (atomicCAS(&fault->writing, 0, 1) != 0) continue;
    if (counts()) {
      seen->name = static_cast<int>(name);
      seen->index = index;
      seen->value = value;
      seen->low = low;
      seen->limit = limit;
      seen->column = column;
      seen->sequence = sequence;
      __threadfence();
      seen->kind = static_cast<int>(kind);
    }
    __threadfence();
    atomicExch(&fault->writing, 0);
    done = true;
  }
}

// What `reports`, one an op, say in words; null where they say nothing. They are empty again.
std::shared_ptr<const Error> error_of(Fault* reports);

}  // namespace linattn::cuda
