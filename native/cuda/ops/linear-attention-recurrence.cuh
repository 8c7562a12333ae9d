// The two kernels of the recurrence: one token a row (decode), and any number of them, the state in registers from the
// first to the last. Either way a state is read once and written once.
#pragma once
#include <algorithm>

#include "cuda/device/launch.cuh"
#include "cuda/device/prefetch.cuh"
#include "cuda/ops/linear-attention-warp.cuh"

namespace linattn::cuda {
namespace recurrence {

constexpr int kMostWarps = 4;     // of a block
constexpr int kMostRows = 65535;  // of a grid
constexpr unsigned kFewBlocks = 512;

// The rows of a state that this lane's warp has; the first one of the warp lies outside of [0, V) when it has none.
template <class Rows>
__device__ __forceinline__ Rows rows_of(const Recurrence& x) {
  constexpr int kLanes = kWarp / Rows::kGroups;
  const int lane = threadIdx.x % kWarp, warp = blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  return {x, static_cast<int>(blockIdx.y), warp * Rows::kGroups * kRows + lane / kLanes, lane % kLanes};
}

template <class Rows>
__device__ __forceinline__ bool outside(const Recurrence& x, const Rows& rows) {
  return rows.row / (Rows::kGroups * kRows) * (Rows::kGroups * kRows) >= x.sizes.V;
}

// Few blocks are all there while the kernel before this one runs: the state of row n may come into the second cache.
template <class Rows>
__device__ __forceinline__ void fetch_ahead(const Recurrence& x, const Rows& rows, int n) {
  if (!x.state || gridDim.x * gridDim.y * gridDim.z > kFewBlocks) return;
  let_next_begin();
  prefetch(x.sequences.offsets + n);
  prefetch(x.sequences.write_slots + n);
  const int slot = glance(x.sequences.read_slots + n);
  if (slot >= 0 && slot < x.sizes.slots) rows.prefetch_state(slot);
}

// Row n is token n. What does not depend on the slot is loaded while that is under way.
template <class T, LinearRule rule, bool channels, int kLanes, int kParts>
__global__ void __launch_bounds__(kMostWarps* kWarp, sizeof(T) == 2 ? 4 : 3)
    step(const __grid_constant__ Recurrence x) {
  using Rows = WarpRows<T, rule, channels, kLanes, kParts, true>;
  const Rows rows = rows_of<Rows>(x);
  if (outside(x, rows)) return;
  const int n = x.first_row + static_cast<int>(blockIdx.z);
  fetch_ahead(x, rows, n);
  wait_for_inputs();
  int read = -1, write = -1;
  if (x.state) {
    read = x.sequences.read_slots[n];
    write = x.sequences.write_slots[n];
  }
  const int offset = x.sequences.offsets[n], end = x.sequences.offsets[n + 1];
  typename Rows::OneToken token;
  rows.load(token, n);
  read = slot_in(read, FaultName::kReadSlots, n, x);
  State<kParts> s;
  rows.load_state(s, read);
  write = slot_in(write, FaultName::kWriteSlots, n, x);
  if (offset != n || end != n + 1) {
    report_not_one_token(x.fault, n, offset, end);
    return;
  }
  if (x.k.data) rows.update(s, token, read < 0);
  if (x.q.data) rows.outputs(s, token, n);
  rows.store_state(s, write);
}

template <class T, LinearRule rule, bool channels, int kLanes, int kParts>
__global__ void __launch_bounds__(kMostWarps* kWarp, 2) recur(const __grid_constant__ Recurrence x) {
  using Rows = WarpRows<T, rule, channels, kLanes, kParts, false>;
  const Rows rows = rows_of<Rows>(x);
  if (outside(x, rows)) return;
  const int n = x.first_row + static_cast<int>(blockIdx.z);
  wait_for_inputs();
  int read = -1, write = -1;
  if (x.state) {
    read = slot_in(x.sequences.read_slots[n], FaultName::kReadSlots, n, x);
    write = slot_in(x.sequences.write_slots[n], FaultName::kWriteSlots, n, x);
  }
  State<kParts> s;
  rows.load_state(s, read);
  const RowTokens tokens = row_tokens(x.sequences, n, x.fault);
  int checkpoint = 0;
  int64_t checkpoint_after = -1;  // tokens of the row
  if (x.checkpoint_every > 0 && x.sequences.positions[n] >= 0) {
    checkpoint = x.sizes.checkpoint_begin[n];
    checkpoint_after = first_checkpoint(x.sequences.positions[n], x.checkpoint_every);
  }

  typename Rows::OneToken token, next;
  for (int i = -1; i < tokens.count; i++) {  // at -1 the first token is loaded
    const int64_t t = tokens.first + static_cast<int64_t>(i);
    if (i + 1 < tokens.count) rows.load(next, t + 1);
    if (i >= 0 && x.k.data) rows.update(s, token, i == 0 && read < 0);
    if (i >= 0 && x.q.data) rows.outputs(s, token, t);
    int slots[2] = {-1, i + 1 == tokens.count ? write : -1};
    if (i + 1 == checkpoint_after) {
      if (checkpoint < x.checkpoint_count) {
        slots[0] = slot_in(x.checkpoint_slots[checkpoint], FaultName::kCheckpointSlots, checkpoint, x);
      }
      checkpoint++;
      checkpoint_after += x.checkpoint_every;
    }
    for (; slots[0] >= 0 || slots[1] >= 0; slots[0] = slots[1], slots[1] = -1) rows.store_state(s, slots[0]);
    token = next;
  }
}

template <class T, LinearRule rule, bool channels, int kLanes, int kParts>
void start(Recurrence x, bool one_token, Cuda& cuda) {
  constexpr int kWarpRows = kRows * (kWarp / kLanes);
  const int64_t warps = ceil_div(x.sizes.V, kWarpRows);
  // Blocks of several warps once there are enough of them for all multiprocessors.
  int64_t by_block = kMostWarps;
  const int64_t heads = static_cast<int64_t>(x.end_row - x.first_row) * x.sizes.H;
  while (by_block > 1 &&
         (by_block > warps || heads * ceil_div(warps, by_block) < 2 * cuda.properties.multiprocessors)) {
    by_block /= 2;
  }
  const dim3 block(static_cast<unsigned>(by_block * kWarp));
  const auto kernel = one_token ? step<T, rule, channels, kLanes, kParts> : recur<T, rule, channels, kLanes, kParts>;
  for (; x.first_row < x.end_row; x.first_row += kMostRows) {
    const dim3 grid(static_cast<unsigned>(ceil_div(warps, by_block)), static_cast<unsigned>(x.sizes.H),
                    static_cast<unsigned>(std::min(kMostRows, x.end_row - x.first_row)));
    launch_early(cuda, kernel, grid, block, 0, x);
  }
}

template <class T, LinearRule rule, bool channels>
void start(const Recurrence& x, bool one_token, Cuda& cuda) {
  const int K = x.sizes.K;
  if (K <= 64) return start<T, rule, channels, 8, 2>(x, one_token, cuda);
  if (K <= 128) return start<T, rule, channels, 8, 4>(x, one_token, cuda);
  if (K <= 256) return start<T, rule, channels, 16, 4>(x, one_token, cuda);
  start<T, rule, channels, 32, 4>(x, one_token, cuda);
}

template <class T, LinearRule rule>
void start(const Recurrence& x, bool one_token, Cuda& cuda) {
  if (x.decay == LinearDecay::kChannel) return start<T, rule, true>(x, one_token, cuda);
  start<T, rule, false>(x, one_token, cuda);
}

}  // namespace recurrence

template <class T>
void run_recurrence(const Recurrence& x, LinearRule rule, bool step, Cuda& cuda) {
  switch (rule) {
    case LinearRule::kAdditive:
      return recurrence::start<T, LinearRule::kAdditive>(x, step, cuda);
    case LinearRule::kDelta:
      return recurrence::start<T, LinearRule::kDelta>(x, step, cuda);
    case LinearRule::kLowRank:
      return recurrence::start<T, LinearRule::kLowRank>(x, step, cuda);
  }
}

}  // namespace linattn::cuda
