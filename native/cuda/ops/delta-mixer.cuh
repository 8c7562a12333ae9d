// The mixer of a Gated DeltaNet layer for one token: what a block has, and how its warps meet.
#pragma once
#include "cuda/device/cluster.cuh"
#include "cuda/ops/causal-conv.cuh"
#include "cuda/ops/delta-gates.cuh"
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

}  // namespace linattn::cuda::mixer
