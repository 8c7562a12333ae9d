// The values of Sequences, checked by one block before the op that takes them: as cpu/sequence-slots.cc.
#include <algorithm>

#include "cuda/device/launch.cuh"
#include "cuda/device/sequences.cuh"

namespace linattn::cuda {
namespace {

constexpr int kMostThreads = 1024;

struct Finding {
  FaultKind kind = FaultKind::kNone;
  FaultName name = FaultName::kRows;
  int value = 0, low = 0, limit = 0;
};

__device__ Finding wrong_offset(const SequencesView& s, int n) {
  const int offset = s.offsets[n], before = n == 0 ? 0 : s.offsets[n - 1];
  const bool first = n == 0, last = n == s.rows;
  if (offset >= before && offset <= s.tokens && (!first || last || offset == 0) && (!last || offset == s.tokens)) {
    return {};
  }
  return {FaultKind::kOffsets, FaultName::kSequenceOffsets, offset, 0, s.tokens};
}

__device__ bool in_range(int slot, int slots) { return slot >= -1 && slot < slots; }

__device__ Finding wrong_write(const SequencesView& s, int n, int slots) {
  const int slot = s.write_slots[n];
  if (!in_range(slot, slots)) return {FaultKind::kRange, FaultName::kWriteSlots, slot, -1, slots};
  for (int other = 0; slot >= 0 && other < n; other++) {
    if (s.write_slots[other] == slot) return {FaultKind::kTwice, FaultName::kWriteSlots, slot};
  }
  return {};
}

__device__ Finding wrong_read(const SequencesView& s, int n, int slots) {
  const int slot = s.read_slots[n];
  if (!in_range(slot, slots)) return {FaultKind::kRange, FaultName::kReadSlots, slot, -1, slots};
  for (int other = 0; slot >= 0 && other < s.rows; other++) {
    if (other == n || s.write_slots[other] != slot) continue;
    return {FaultKind::kReadAndWritten, FaultName::kReadSlots, slot, other};
  }
  return {};
}

// The mistake that the CPU would find first: offsets, then slots to write, then slots to read, each in order of rows.
__device__ void report_first(const SequencesView& s, int slots, Fault* fault) {
  __shared__ int first;
  if (threadIdx.x == 0) first = INT32_MAX;
  __syncthreads();
  for (int kind = 0; kind < (slots < 0 ? 1 : 3); kind++) {
    const auto finding_of = [&](int n) {
      if (kind == 0) return wrong_offset(s, n);
      return kind == 1 ? wrong_write(s, n, slots) : wrong_read(s, n, slots);
    };
    const int count = kind == 0 ? s.rows + 1 : s.rows;
    for (int n = static_cast<int>(threadIdx.x); n < count; n += static_cast<int>(blockDim.x)) {
      if (finding_of(n).kind == FaultKind::kNone) continue;
      atomicMin(&first, n);
      break;
    }
    __syncthreads();
    const int row = first;
    __syncthreads();  // nobody writes the next kind's before all have read this one's
    if (row == INT32_MAX) continue;
    if (threadIdx.x == 0) {
      const Finding found = finding_of(row);
      report(fault, found.kind, found.name, row, found.value, found.low, found.limit);
    }
    return;
  }
}

// `owners` (null: `shared` memory has room for them), one a slot, are read only where they were written: whoever wrote
// last stays, and everybody else finds another owner there.
__global__ void __launch_bounds__(kMostThreads)
    check_values(SequencesView s, int slots, int32_t* owners, Fault* fault) {
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  int32_t* owner = owners ? owners : dynamic_shared<int32_t>();
  bool wrong = false;
  for (int n = thread; n <= s.rows; n += threads) wrong |= wrong_offset(s, n).kind != FaultKind::kNone;
  for (int n = thread; slots >= 0 && n < s.rows; n += threads) {
    const int write = s.write_slots[n];
    wrong |= !in_range(write, slots) || !in_range(s.read_slots[n], slots);
    if (write >= 0 && write < slots) atomicExch(&owner[write], n);
  }
  __syncthreads();
  for (int n = thread; slots >= 0 && n < s.rows; n += threads) {
    const int write = s.write_slots[n], read = s.read_slots[n];
    if (write >= 0 && write < slots) wrong |= owner[write] != n;
    if (read < 0 || read >= slots) continue;
    const int writer = owner[read];
    wrong |= writer >= 0 && writer < s.rows && writer != n && s.write_slots[writer] == read;
  }
  if (__syncthreads_or(wrong)) report_first(s, slots, fault);
}

}  // namespace

void check_sequences(Cuda& cuda, const Sequences& sequences, int64_t slots) {
  if (cuda.recording) return;
  const auto count = static_cast<size_t>(std::max<int64_t>(slots, 0));
  const size_t bytes = count * sizeof(int32_t);
  int32_t* owners = bytes > kSharedUnasked ? cuda.scratch_of<int32_t>(count) : nullptr;
  const auto threads =
      static_cast<unsigned>(std::min<int64_t>(ceil_div(int64_t{sequences.rows} + 1, kWarp) * kWarp, kMostThreads));
  launch(cuda, check_values, dim3(1), dim3(threads), owners ? 0 : bytes, view_of(sequences), static_cast<int>(slots),
         owners, cuda.fault());
}

}  // namespace linattn::cuda
