// One token of a Gated DeltaNet mixer in one kernel: causalConv with the norm of q and k, deltaGates, linearAttention.
// A warp has 8 rows of a state; it makes q, k, the gates and its own v for itself, so that no warp waits for another.
// The warps of a key head are a cluster: none may write a window that another has yet to read.
#include "cuda/device/activate.cuh"
#include "cuda/device/cluster.cuh"
#include "cuda/device/launch.cuh"
#include "cuda/device/prefetch.cuh"
#include "cuda/fusions.h"
#include "cuda/ops/causal-conv.cuh"
#include "cuda/ops/delta-gates.cuh"
#include "cuda/ops/delta-step.h"
#include "cuda/ops/linear-attention-warp.cuh"

namespace linattn::cuda {
namespace {

using namespace recurrence;

constexpr int kHeadWidth = 128;  // K and V: a lane has 4 channels of a key head
constexpr int kTaps = 4, kPast = kTaps - 1;
constexpr int kLanes = 8, kParts = kHeadWidth / (4 * kLanes);
constexpr int kWarpRows = kRows * kWarp / kLanes;
constexpr int kHeadWarps = kHeadWidth / kWarpRows;
constexpr int kCluster = 8;        // blocks
constexpr int kMostSharers = 4;    // value heads of a key head
constexpr int64_t kMostRows = 16;  // with more, that every warp makes q and k costs more than a kernel

template <class T>
struct DeltaStep {
  Conv<T> conv;
  DeltaGatesBody<T> gates;
  Recurrence attention;
  int sharers;
};

// What a lane has of the convolution: 4 channels, from `channel` on; the arithmetic is that of causal-conv.cu.
template <class T>
struct ConvLane {
  int64_t channel;
  float weight[kConvWidth * kTaps], recent[kTaps][kConvWidth], bias[kConvWidth] = {};

  __device__ __forceinline__ void load_inputs(const Conv<T>& conv, int n) {
    load(conv.x.at(n, channel), recent[kPast]);
    if (conv.bias) load(conv.bias + channel, bias);
#pragma unroll
    for (int w = 0; w < kTaps; w++) {
      float part[kConvWidth];
      load(conv.weight + channel * kTaps + w * kConvWidth, part);
#pragma unroll
      for (int c = 0; c < kConvWidth; c++) weight[w * kConvWidth + c] = part[c];
    }
  }
  __device__ __forceinline__ void load_window(const float* before) {
#pragma unroll
    for (int w = 0; w < kPast; w++) {
      float part[kConvWidth] = {};
      if (before) load(before + w * kConvWidth, part);
#pragma unroll
      for (int c = 0; c < kConvWidth; c++) {
        const int at = w * kConvWidth + c;
        recent[at % kPast][at / kPast] = part[c];
      }
    }
  }
  __device__ __forceinline__ void output(const Conv<T>& conv, float (&total)[kConvWidth]) const {
#pragma unroll
    for (int c = 0; c < kConvWidth; c++) {
      total[c] = bias[c];
#pragma unroll
      for (int w = 0; w < kTaps; w++) total[c] = fmaf(weight[c * kTaps + w], recent[w][c], total[c]);
      if (conv.silu) total[c] = silu_as<T>(total[c]);
    }
  }
  __device__ __forceinline__ void store_window(float* after) const {
    if (!after) return;
#pragma unroll
    for (int w = 0; w < kPast; w++) {
      float part[kConvWidth];
#pragma unroll
      for (int c = 0; c < kConvWidth; c++) {
        part[c] = recent[(w * kConvWidth + c) % kPast + 1][(w * kConvWidth + c) / kPast];
      }
      store(after + w * kConvWidth, part);
    }
  }
};

// To length 1, over a warp.
template <class T>
__device__ __forceinline__ void norm_head(const Conv<T>& conv, float (&values)[kConvWidth]) {
  float squares = 0;
#pragma unroll
  for (int c = 0; c < kConvWidth; c++) squares = fmaf(values[c], values[c], squares);
#pragma unroll
  for (int apart = kWarp / 2; apart > 0; apart /= 2) squares += __shfl_xor_sync(kFullMask, squares, apart);
  const float factor = unit_scale<T>(squares, conv.norm_eps);
#pragma unroll
  for (int c = 0; c < kConvWidth; c++) values[c] *= factor;
}

template <class T>
__device__ __forceinline__ Four<T> four_of(const float (&values)[kConvWidth]) {
  Four<T> four;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    four.bits[i] = bits_of(from_float<T>(values[2 * i])) | bits_of(from_float<T>(values[2 * i + 1])) << 16;
  }
  return four;
}

// From a lane with each four of a head to lanes with every kLanes-th four.
template <class T>
__device__ __forceinline__ void deal(const Four<T>& own, int place, Four<T> (&to)[kParts]) {
#pragma unroll
  for (int j = 0; j < kParts; j++) {
#pragma unroll
    for (int i = 0; i < 2; i++) to[j].bits[i] = __shfl_sync(kFullMask, own.bits[i], j * kLanes + place);
  }
}

// What fit() has made sure of stands in the code, which is the shorter for it: it comes from memory in every layer.
__device__ __forceinline__ Recurrence known(Recurrence x) {
  x.sizes.K = x.sizes.V = kHeadWidth;
  x.sizes.G = 1;
  x.decay = LinearDecay::kToken;
  x.sums = nullptr;
  x.divisor = nullptr;
  return x;
}

static __device__ LINATTN_NO_INLINE void complain(Fault* fault, FaultName name, int n, int slot, int slots) {
  report(fault, FaultKind::kRange, name, n, slot, -1, slots);
}

__device__ __forceinline__ int slot_of(Fault* fault, FaultName name, int slot, int n, int slots) {
  if (slot >= -1 && slot < slots) return slot;
  complain(fault, name, n, slot, slots);
  return -1;
}

template <class T>
__global__ void __launch_bounds__(2 * kMostSharers * kWarp) delta_step(const __grid_constant__ DeltaStep<T> a) {
  using Rows = WarpRows<T, LinearRule::kDelta, false, kLanes, kParts, true>;
  const Conv<T>& conv = a.conv;
  const Recurrence x = known(a.attention);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int key_head = static_cast<int>(blockIdx.y), n = static_cast<int>(blockIdx.z);
  const int of_cluster = static_cast<int>(blockIdx.x) * warps + warp;
  const int h = key_head * a.sharers + of_cluster / kHeadWarps, first_row = of_cluster % kHeadWarps * kWarpRows;
  const Rows rows{x, h, first_row + lane / kLanes, lane % kLanes};
  const bool has_v = lane < kWarpRows / kConvWidth;
  const int64_t keys = conv.norm_channels / 2;
  ConvLane<T> q, k, v;
  q.channel = static_cast<int64_t>(key_head) * kHeadWidth + lane * kConvWidth;
  k.channel = keys + q.channel;
  v.channel = 2 * keys + static_cast<int64_t>(h) * kHeadWidth + first_row + (has_v ? lane * kConvWidth : 0);
  for (const auto* one : {&q, &k, &v}) prefetch(conv.weight + one->channel * kTaps);
  wait_for_inputs();

  const int offset = x.sequences.offsets[n], end = x.sequences.offsets[n + 1];
  const int read_slot = x.sequences.read_slots[n], write_slot = x.sequences.write_slots[n];
  const int conv_read = slot_of(conv.fault, FaultName::kReadSlots, read_slot, n, conv.slots);
  const int read = slot_of(x.fault, FaultName::kReadSlots, read_slot, n, x.sizes.slots);
  q.load_inputs(conv, n);
  k.load_inputs(conv, n);
  v.load_inputs(conv, n);
  if (offset != n || end != n + 1) {
    report_not_one_token(x.fault, n, offset, end);
    return;
  }
  State<kParts> s;
  rows.load_state(s, read);
  const float* const windows = conv_read < 0 ? nullptr : conv.state + conv_read * conv.slot_stride;
  for (auto* one : {&q, &k, &v}) one->load_window(windows ? windows + one->channel * kPast : nullptr);
  typename Rows::OneToken token;
  float g[1], beta[1];
  a.gates.of(n, h, g, beta);
  token.row_decay[0] = __float_as_uint(g[0]);
  token.beta = beta[0];

  float totals[3][kConvWidth];
  q.output(conv, totals[0]);
  k.output(conv, totals[1]);
  v.output(conv, totals[2]);
  norm_head(conv, totals[0]);
  norm_head(conv, totals[1]);
  cluster_arrive();
  deal(four_of<T>(totals[0]), rows.place, token.q);
  deal(four_of<T>(totals[1]), rows.place, token.k);
  const Four<T> own = four_of<T>(totals[2]);
#pragma unroll
  for (int r = 0; r < kRows; r++) {
    const uint32_t low = __shfl_sync(kFullMask, own.bits[0], r), high = __shfl_sync(kFullMask, own.bits[1], r);
    const int e = lane / kLanes;
    token.v[r] = T{static_cast<uint16_t>((e < 2 ? low : high) >> (e % 2 * 16))};
  }
  rows.update(s, token, read < 0);
  rows.output(s, token.q, 1.0f, n, 0);
  rows.store_state(s, slot_of(x.fault, FaultName::kWriteSlots, write_slot, n, x.sizes.slots));

  cluster_wait();
  const bool writes_keys = of_cluster + 1 == kCluster * warps;
  const int write = slot_of(conv.fault, FaultName::kWriteSlots, write_slot, n, conv.slots);
  float* const after = write < 0 ? nullptr : conv.state + write * conv.slot_stride;
  const auto finish = [&](const ConvLane<T>& one, const float (&total)[kConvWidth]) {
    store(conv.out.at(n, one.channel), total);
    one.store_window(after ? after + one.channel * kPast : nullptr);
  };
  if (writes_keys) finish(q, totals[0]);
  if (writes_keys) finish(k, totals[1]);
  if (has_v) finish(v, totals[2]);
  if (first_row != 0 || lane != 0) return;
  store(a.gates.g.at(n, h), g);
  store(a.gates.beta.at(n, h), beta);
}

bool same_sequences(const Sequences& a, const Sequences& b) {
  return a.rows == b.rows && a.tokens == b.tokens && a.offsets.data == b.offsets.data &&
         a.read_slots.data == b.read_slots.data && a.write_slots.data == b.write_slots.data;
}

bool fit(const CausalConv& conv, const DeltaGates& gates, const LinearAttention& op, const LinearSizes& sizes) {
  const Sequences& s = op.sequences;
  const int64_t keys = int64_t{sizes.Hk} * kHeadWidth, channels = 2 * keys + int64_t{sizes.Hv} * kHeadWidth;
  return s.rows > 0 && s.rows <= kMostRows && s.rows == s.tokens && s.single_rows == s.rows &&
         same_sequences(s, conv.sequences) && dtype_bytes(sizes.dtype) == 2 && sizes.K == kHeadWidth &&
         sizes.V == kHeadWidth && sizes.G == 1 && sizes.Hq == sizes.Hk && sizes.Hv % sizes.Hk == 0 &&
         sizes.Hv <= kMostSharers * sizes.Hk && conv.weight.shape[1] == kTaps && conv.weight.shape[0] == channels &&
         conv.x.shape[1] == channels && conv.state && conv_aligned(conv) && conv.norm_channels == 2 * keys &&
         conv.norm_width == kHeadWidth && begins_at(op.q, conv.out, 0) && begins_at(op.k, conv.out, keys) &&
         begins_at(op.v, conv.out, 2 * keys) && gates.b && gates.a.dtype == conv.x.dtype &&
         gates.a.shape[1] == sizes.H && begins_at(op.log_decay, gates.g, 0) && begins_at(op.beta, gates.beta, 0) &&
         apart({conv.out, gates.g, gates.beta, op.out}, {conv.x, gates.a, gates.b});
}

}  // namespace

bool delta_step_serves(const CausalConv& conv, const DeltaGates& gates, const LinearAttention& op, Cuda& cuda) {
  const bool plain = op.q && op.k && op.v && op.state && op.out && op.rule == LinearRule::kDelta &&
                     op.decay == LinearDecay::kToken && !op.key_sum && !op.normalize && !op.denominator &&
                     op.checkpoint_every == 0;
  if (!plain || cuda.properties.capability < 90) return false;
  const LinearSizes sizes = sizes_of(op);
  if (!fit(conv, gates, op, sizes)) return false;
  const Recurrence attention = state_recurrence(op, sizes, cuda);
  return attention.aligned && attention.state_aligned;
}

bool step_delta(const CausalConv& conv, const DeltaGates& gates, const LinearAttention& op, Cuda& cuda) {
  if (!delta_step_serves(conv, gates, op, cuda)) return false;
  const LinearSizes sizes = sizes_of(op);
  cuda.op = kOpIndex<LinearAttention>;
  const Recurrence attention = state_recurrence(op, sizes, cuda);
  cuda.op = kOpIndex<CausalConv>;
  for_float(sizes.dtype, [&](auto t) {
    using T = decltype(t);
    if constexpr (sizeof(T) == 2) {
      const int sharers = sizes.Hv / sizes.Hk;
      const DeltaStep<T> step{conv_of<T>(conv, cuda), delta_gates_body<T>(gates), attention, sharers};
      const dim3 grid(kCluster, static_cast<unsigned>(sizes.Hk), static_cast<unsigned>(sizes.rows));
      const auto threads = static_cast<unsigned>(sharers * kHeadWarps / kCluster * kWarp);
      launch_as(LaunchHow{.early = true, .cluster = kCluster}, cuda, delta_step<T>, grid, dim3(threads), 0, step);
    }
  });
  return true;
}

}  // namespace linattn::cuda
