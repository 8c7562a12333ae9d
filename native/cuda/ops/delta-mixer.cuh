// The mixer of a Gated DeltaNet layer for one token: what a block has, how its warps meet, and what they do before the
// step of the state.
#pragma once
#include "cuda/device/cluster.cuh"
#include "cuda/ops/causal-conv.cuh"
#include "cuda/ops/delta-gates.cuh"
#include "cuda/ops/linear-attention.h"
#include "cuda/ops/matmul-few-rows-mma.cuh"
#include "cuda/ops/rms-norm.cuh"

namespace linattn::cuda::mixer {

constexpr int kHidden = 1024, kHeadWidth = 128;
constexpr int kTaps = 4, kPast = kTaps - 1;
constexpr int kCluster = 8;                   // blocks of a head
constexpr int kRows = kHeadWidth / kCluster;  // of a head's state in a block; channels of q, of k, of v, of z
constexpr int kTile = 8;                      // outputs that a warp makes at once
constexpr int kSplit = 512;                   // inputs of a warp, as in the product alone
constexpr int kSplits = kHidden / kSplit, kTiles = kRows / kTile;
constexpr int kStepInputs = 32;               // of a warp
constexpr int kPitch = kSplit * 2 + 64;       // neighbouring rows lie in different halves of the banks
constexpr int kPartWarps = kTiles * kSplits;  // of q, of k, of v
constexpr int kGateWarp = 3 * kPartWarps;     // the first one of those of b and a
constexpr int kWarps = kGateWarp + kSplits;
constexpr int kThreads = kWarps * kWarp;
constexpr int kAtOnce = kBulkAtOnce / (kTile * kSplit * 2);  // warps whose weights come at once
constexpr int kTeam = 4;                                     // warps that norm the inputs, and that have the state
constexpr int kTeamThreads = kTeam * kWarp;
constexpr int kStateThreads = kTeamThreads + 2 * kWarp;  // with the warps of v and of the gates
constexpr int kSenders = kTeam;             // the first one of kCluster warps that send q and k, each to a block
constexpr int kGatedWarp = 2 * kPartWarps;  // the first one of those that make z
static_assert(kRows * kHeadWidth == kSplits * kWarp * 32 && kTeamThreads * 8 == kHidden &&
              kTeamThreads * kCluster == kHidden && kTeamThreads == kRows * 8 && 2 * kRows == kWarp);

template <class T>
struct DeltaMixer {
  RmsNormGroups<T> norm;
  const T* weights;
  T* product;  // q | k | v | z | b | a
  Conv<T> conv;
  DeltaGatesBody<T> gates;
  SequencesView sequences;
  StridedRows<T> out;
  float* state;
  int64_t slot_stride;
  int slots, heads;
  float scale;
  Fault* fault;
};

template <class T>
struct Shared {
  char weights[kGateWarp][kTile * kPitch];
  char gate_weights[kSplits][2 * kPitch];
  T row[kHidden];
  float sums[kWarps + kPartWarps][kTile];  // z has the last ones
  float squares[kTeam];
  float keys[2][kHeadWidth];  // q and k before they are normed
  float v[kRows];
  float decay, beta;
  ByteBarrier full[kWarps], keys_full, met, row_made;
  int arguments;
};

// Barriers of some of the warps.
enum BarrierId : int { kStateInputs = 1, kGateSums };

template <int id, int threads>
__device__ __forceinline__ void meet() {
  __syncwarp();
#ifdef LINATTN_CUDA_EMULATOR
  emulator::named_barrier(id, threads);
#else
  asm volatile("bar.sync %0, %1;" ::"n"(id), "n"(threads) : "memory");
#endif
}
template <int id, int threads>
__device__ __forceinline__ void come_by() {
  __syncwarp();
#ifdef LINATTN_CUDA_EMULATOR
  emulator::named_arrive(id, threads);
#else
  asm volatile("bar.arrive %0, %1;" ::"n"(id), "n"(threads) : "memory");
#endif
}

template <class T>
__device__ __forceinline__ float rounded(float x) {
  return as_float(from_float<T>(x));
}
// Two at once are one instruction of the fast kind.
template <class T, int N>
__device__ __forceinline__ void round_all(float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; i += 2) {
    const uint32_t pair = pack_pair<T>(x[i], x[i + 1]);
    x[i] = as_float(T{static_cast<uint16_t>(pair)});
    x[i + 1] = as_float(T{static_cast<uint16_t>(pair >> 16)});
  }
}

// Where the token's states are and go.
struct TokenSlots {
  int begin, end;  // of the row's tokens, which are one, as recorded
  int read, write;

  __device__ __forceinline__ explicit TokenSlots(const SequencesView& s)
      : begin(s.offsets[0]), end(s.offsets[1]), read(s.read_slots[0]), write(s.write_slots[0]) {}
  __device__ __forceinline__ bool is_one() const { return (begin | (end ^ 1)) == 0; }
  // `slot` of `slots`, or -1.
  __device__ __forceinline__ int checked(int slot, int slots) const { return slot >= -1 && slot < slots ? slot : -1; }
  __device__ __forceinline__ void check(Fault* fault, int slots) const {
    if (checked(read, slots) != read) complain(fault, FaultName::kReadSlots, read, slots);
    if (checked(write, slots) != write) complain(fault, FaultName::kWriteSlots, write, slots);
  }

 private:
  static __device__ LINATTN_NO_INLINE void complain(Fault* fault, FaultName name, int slot, int slots) {
    report(fault, FaultKind::kRange, name, 0, slot, -1, slots);
  }
};

// A channel of the convolution.
template <class T>
struct Channel {
  int index = 0;
  float taps[kTaps], past[kPast] = {}, bias = 0;

  __device__ __forceinline__ void load_from(const Conv<T>& conv, const TokenSlots& token, int channel) {
    index = channel;
    load(conv.weight + index * kTaps, taps);
    if (conv.bias) bias = conv.bias[index];
    const int slot = token.checked(token.read, conv.slots);
    if (slot < 0) return;
    const float* const window = conv.state + slot * conv.slot_stride + index * kPast;
#pragma unroll
    for (int w = 0; w < kPast; w++) past[w] = window[w];
  }
  __device__ __forceinline__ float output(float x) const {
    float y = bias;
#pragma unroll
    for (int w = 0; w < kPast; w++) y = fmaf(taps[w], past[w], y);
    return silu_as<T>(fmaf(taps[kPast], x, y));
  }
  __device__ __forceinline__ void store_window(const Conv<T>& conv, const TokenSlots& token, float x) const {
    const int slot = token.checked(token.write, conv.slots);
    if (slot < 0) return;
    float* const window = conv.state + slot * conv.slot_stride + index * kPast;
#pragma unroll
    for (int w = 0; w < kPast; w++) window[w] = w + 1 < kPast ? past[w + 1] : x;
  }
};

// What the warps of a block do.
template <class T>
struct Block {
  const DeltaMixer<T>& a;
  Shared<T>& s;
  const int lane = static_cast<int>(threadIdx.x % kWarp), warp = static_cast<int>(threadIdx.x / kWarp);
  const int head = static_cast<int>(blockIdx.x / kCluster), rank = static_cast<int>(blockIdx.x % kCluster);
  const int values = a.heads * kHeadWidth;
  const int channel = head * kHeadWidth + rank * kRows;  // the first one of q, of k, of v and of z

  __device__ __forceinline__ int thread() const { return static_cast<int>(threadIdx.x); }

  // 8 rows of weights from output `first` on, of the inputs of a split.
  __device__ __forceinline__ void fetch(int first, int split) const {
    constexpr uint32_t kBytes = kSplit * sizeof(T);
    if (lane == 0) s.full[warp].expect(kTile * kBytes);
    __syncwarp();
    if (lane >= kTile) return;
    copy_bulk_once(s.weights[warp] + lane * kPitch, a.weights + int64_t{first + lane} * kHidden + split * kSplit,
                   kBytes, s.full[warp]);
  }
  __device__ __forceinline__ int output_of(int part) const {
    return part * values + channel + warp / kSplits % kTiles * kTile;
  }
  __device__ __forceinline__ void fetch_first() const {
    if (warp < kGateWarp) {
      fetch(output_of(warp / kPartWarps), warp % kSplits);
      return;
    }
    constexpr uint32_t kBytes = kSplit * sizeof(T);
    const int split = warp - kGateWarp;
    if (lane == 0) s.full[warp].expect(2 * kBytes);
    __syncwarp();
    if (lane >= 2) return;
    const int output = 4 * values + lane * a.heads + head;
    copy_bulk_once(s.gate_weights[split] + lane * kPitch, a.weights + int64_t{output} * kHidden + split * kSplit,
                   kBytes, s.full[warp]);
  }
  // What the second cache is to have when it is asked for.
  __device__ __forceinline__ void prefetch_rest() const {
    if (warp == 0 && lane < kRows) {
      prefetch_bulk_once(a.weights + int64_t{3 * values + channel + lane} * kHidden, kHidden * sizeof(T));
    }
    if (warp == 1 && lane < 6) {
      const int64_t at = int64_t{lane / 2} * values + channel + lane % 2 * kTile;
      prefetch(a.conv.weight + at * kTaps);
    }
    if (warp == 2 && lane == 0 && blockIdx.x < kHidden / 32) prefetch(a.norm.weight + blockIdx.x * 32);
  }

  // The weights of z to where those of v were, 16 bytes a lane: one bulk copy after another takes longer.
  __device__ __forceinline__ void fetch_gate() const {
    constexpr int kRowLanes = kSplit / 8;
    const T* const first = a.weights + int64_t{output_of(3)} * kHidden + warp % kSplits * kSplit;
#pragma unroll
    for (int i = 0; i < kTile * kRowLanes / kWarp; i++) {
      const int at = i * kWarp + lane, row = at / kRowLanes, place = at % kRowLanes;
      copy_async_16(s.weights[warp] + row * kPitch + place * 16, first + row * kHidden + place * 8);
    }
    copy_async_commit();
  }

  // What the team's threads hold of the row: 8 values each.
  __device__ __forceinline__ void norm_inputs() const {
    const RmsNormGroups<T>& norm = a.norm;
    const int at = thread() * 8;
    float values[8], residuals[8], weight[8];
    load(norm.x.at(0, at), values);
    if (norm.residual.data) load(norm.residual.at(0, at), residuals);
    load(norm.weight + at, weight);
    const bool stores = blockIdx.x == 0;
    if (norm.residual.data) {
#pragma unroll
      for (int i = 0; i < 8; i++) values[i] = fmaf(values[i], norm.branch_scale, residuals[i]);
      round_all<T>(values);
      if (stores) store(norm.sum.at(0, at), values);
    }
    float squares = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) squares = fmaf(values[i], values[i], squares);
    squares = warp_sum(squares);
    if (lane == 0) s.squares[warp] = squares;
    s.met.arrive();
    s.met.wait(0);
    const float all = warp_sum(lane < kTeam ? s.squares[lane] : 0.0f);
    const float scale = 1.0f / sqrtf(all / static_cast<float>(kHidden) + norm.eps);
#pragma unroll
    for (int i = 0; i < 8; i++) values[i] = values[i] * scale * (weight[i] + norm.centre);
    store(s.row + at, values);
    if (stores) store(norm.out.at(0, at), values);
  }

  // The sums of a split of the 8 outputs whose weights this lane's group reads at `weights`. Loads are kHeld steps
  // ahead. Shared memory is what bounds it: of the inputs, one row of the operand, only the lanes that have it load.
  __device__ __forceinline__ void multiply(const char* weights, int split, float* to) const {
    constexpr int kSteps = kSplit / kStepInputs, kHeld = 4;
    const int place = lane % 4;
    const T* const inputs = s.row + split * kSplit + place * 8;
    weights += place * 16;
    uint4 w[kHeld], x[kHeld] = {};
    const auto load_step = [&](int step) {
      w[step % kHeld] = *reinterpret_cast<const uint4*>(weights + step * kStepInputs * 2);
      if (lane < 4) x[step % kHeld] = *reinterpret_cast<const uint4*>(inputs + step * kStepInputs);
    };
#pragma unroll
    for (int step = 0; step < kHeld; step++) load_step(step);
    few_rows::Chains chains;
#pragma unroll
    for (int step = 0; step < kSteps; step++) {
      const int i = step % kHeld;
      chains.multiply<few_rows::Operands<T, T, T>>(step, {x[i].x, x[i].y, x[i].z, x[i].w}, {0, 0, 0, 0},
                                                   {w[i].x, w[i].y, w[i].z, w[i].w});
      if (step + kHeld < kSteps) load_step(step + kHeld);
    }
    if (lane < 4) *reinterpret_cast<float2*>(to + 2 * lane) = make_float2(chains.total(0), chains.total(1));
  }
  // An output whose sums begin at those of warp `first`, as the product stores it.
  __device__ __forceinline__ float total(int first, int o) const {
    return rounded<T>(s.sums[first][o] + s.sums[first + 1][o]);
  }

  // q and k of the block's channels, to one of the cluster's blocks.
  __device__ __forceinline__ void send_keys(const Channel<T>& own, const TokenSlots& token) const {
    const int of = lane / kRows, c = lane % kRows, target = warp - kSenders;
    const float x = total(of * kPartWarps + c / kTile * kSplits, c % kTile);
    send_to_block(&s.keys[of][rank * kRows + c], target, own.output(x), s.keys_full);
    if (target == 0) a.product[own.index] = from_float<T>(x);
    if (target == 1) own.store_window(a.conv, token, x);
  }
  __device__ __forceinline__ void make_values(const Channel<T>& own, const TokenSlots& token) const {
    const bool present = lane < kRows;
    const float x = present ? total(2 * kPartWarps + lane / kTile * kSplits, lane % kTile) : 0.0f, y = own.output(x);
    if (present) s.v[lane] = rounded<T>(y);
    come_by<kStateInputs, kStateThreads>();
    if (!present) return;
    a.product[own.index] = from_float<T>(x);
    *a.conv.out.at(0, own.index) = from_float<T>(y);
    own.store_window(a.conv, token, x);
  }
  __device__ __forceinline__ void make_gates() const {
    float rate[1] = {total(kGateWarp, 1)}, strength[1] = {total(kGateWarp, 0)};
    if (rank == 0 && lane == 0) {
      a.product[4 * values + head] = from_float<T>(strength[0]);
      a.product[4 * values + a.heads + head] = from_float<T>(rate[0]);
    }
    a.gates.make(head, rate, strength);
    if (lane == 0) {
      s.decay = decay_of(rate[0]);
      s.beta = strength[0];
    }
    come_by<kStateInputs, kStateThreads>();
    if (rank != 0 || lane != 0) return;
    store(a.gates.g.at(0, head), rate);
    store(a.gates.beta.at(0, head), strength);
  }

  // Of z, once the weights that this warp had before have been read.
  __device__ __forceinline__ void multiply_gate() const {
    const int own = warp - kGatedWarp;
    copy_async_wait<0>();
    __syncwarp();
    multiply(s.weights[warp] + lane / 4 * kPitch, own % kSplits, s.sums[kWarps + own]);
    meet<kGateSums, kPartWarps * kWarp>();
    const int z = thread() - kGatedWarp * kWarp;
    if (z < kRows) a.product[3 * values + channel + z] = from_float<T>(total(kWarps + z / kTile * kSplits, z % kTile));
  }
};

}  // namespace linattn::cuda::mixer
