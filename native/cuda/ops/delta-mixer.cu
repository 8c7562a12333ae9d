// The mixer of a Gated DeltaNet layer for one token in one kernel: rmsNorm, the input product, causalConv with the norm
// of q and k, deltaGates and linearAttention. A cluster of 8 blocks has a head; a block of it has 16 channels each of
// q, k, v and the gate z, and 16 rows of the state. q and k go from block to block through shared memory. The bits are
// those of the ops one by one: rms-norm.cuh, matmul-few-rows-bulk.cu, causal-conv.cu, delta-gates.cuh,
// linear-attention-warp.cuh.
#include "cuda/device/launch.cuh"
#include "cuda/fusions.h"
#include "cuda/ops/delta-mixer.cuh"
#include "cuda/ops/delta-mixer.h"
#include "cuda/ops/delta-step.h"
#include "cuda/ops/linear-attention.h"
#include "cuda/ops/matmul.h"

namespace linattn::cuda {
namespace {

using namespace mixer;

// The rows of a state that the team has: 8 lanes a row; a lane has columns (j * 8 + place) * 4 + e.
template <class T>
struct StateRow {
  const Block<T>& block;
  float state[4][4] = {};
  const int row = block.thread() / 8, place = block.lane % 8;

  __device__ __forceinline__ float* at(int slot) const {
    const int64_t in_slot = int64_t{block.channel + row} * kHeadWidth + place * 4;
    return block.a.state + slot * block.a.slot_stride + in_slot;
  }
  // Of all rows of the block, by the last two warps.
  __device__ __forceinline__ void prefetch_state(int slot) const {
    constexpr int kLine = 32;
    const int line = block.thread() - kGateWarp * kWarp;
    if (slot >= 0)
      prefetch(block.a.state + slot * block.a.slot_stride + int64_t{block.channel} * kHeadWidth + line * kLine);
  }
  __device__ __forceinline__ void load_state(int slot) {
    if (slot < 0) return;
#pragma unroll
    for (int j = 0; j < 4; j++) load(at(slot) + j * 32, state[j]);
  }
  __device__ __forceinline__ void store_state(int slot) const {
    if (slot < 0) return;
#pragma unroll
    for (int j = 0; j < 4; j++) store(at(slot) + j * 32, state[j]);
  }
  __device__ __forceinline__ float dot(const float (&x)[4][4]) const {
    float parts[4] = {};
#pragma unroll
    for (int j = 0; j < 4; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) parts[e] = fmaf(state[j][e], x[j][e], parts[e]);
    }
    float sum = (parts[0] + parts[1]) + (parts[2] + parts[3]);
#pragma unroll
    for (int apart = 4; apart > 0; apart /= 2) sum += __shfl_xor_sync(kFullMask, sum, apart);
    return sum;
  }
  // q or k of length 1; `own`: this lane's 4 of its 32.
  __device__ __forceinline__ void norm_key(const float* from, float (&own)[4], float (&to)[4][4]) const {
    load(from + block.lane * 4, own);
    float squares = 0;
#pragma unroll
    for (const float x : own) squares = fmaf(x, x, squares);
    const float factor = unit_scale<T>(warp_sum(squares), block.a.conv.norm_eps);
#pragma unroll
    for (float& x : own) x *= factor;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      load(from + j * 32 + place * 4, to[j]);
#pragma unroll
      for (float& x : to[j]) x *= factor;
      round_all<T>(to[j]);
    }
  }

  __device__ __forceinline__ void step(bool fresh) {
    const DeltaMixer<T>& a = block.a;
    Shared<T>& s = block.s;
    float q[4][4], k[4][4], own[2][4];
    s.keys_full.wait_for_blocks(0);
    norm_key(s.keys[0], own[0], q);
    norm_key(s.keys[1], own[1], k);
    meet<kStateInputs, kStateThreads>();
    const float decay = fresh ? 0.0f : s.decay;
#pragma unroll
    for (auto& four : state) {
#pragma unroll
      for (float& x : four) x *= decay;
    }
    const float u = s.beta * (s.v[row] - dot(k));
#pragma unroll
    for (int j = 0; j < 4; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) state[j][e] = fmaf(u, k[j][e], state[j][e]);
    }
    const float value = dot(q) * a.scale;
    if (place == 0) *a.out.at(0, block.channel + row) = from_float<T>(value);
    if (block.warp >= 2 || block.lane / 4 != block.rank) return;
    T* const to = a.conv.out.at(0, block.warp * block.values + block.head * kHeadWidth + block.lane * 4);
    if (block.warp == 0) {
      store(to, own[0]);
    } else {
      store(to, own[1]);
    }
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads, 2) mix(const __grid_constant__ DeltaMixer<T> a) {
  Shared<T>& s = *dynamic_shared<Shared<T>>();
  const Block<T> block{a, s};
  const int lane = block.lane, warp = block.warp, split = warp % kSplits;
  const bool team = warp < kTeam;
  // Until the inputs are made, the others ask when what another one asked for is there: as in made_row().
  const bool at_once = warp < kAtOnce || warp >= kGateWarp;
  if (warp == kWarps - 1) fetch_arguments(&s.arguments, a);
  if (lane == 0) s.full[warp].init();
  __syncwarp();
  if (at_once) block.fetch_first();  // no kernel that may still run writes weights (packWeight)
  block.prefetch_rest();
  if (block.thread() == 0) {
    s.keys_full.init();
    s.met.init(kTeam);
    s.row_made.init(kTeamThreads);
  }
  __syncwarp();
  if (block.thread() == 0) s.keys_full.expect(sizeof(s.keys));
  __syncwarp();
  cluster_arrive<false>();
  cluster_wait();
  let_next_begin();  // once the first weights are asked for
  if (!at_once) {
    wait_for_either(s.full[warp - kAtOnce], s.row_made);
    block.fetch_first();
  }
  wait_for_inputs();

  const TokenSlots token(a.sequences);
  const int read = token.checked(token.read, a.slots);
  StateRow<T> row{block};
  Channel<T> own;
  if (team) {
    block.norm_inputs();
    s.row_made.arrive_each();
  } else {
    const int part = warp < kGateWarp ? lane / kRows : 2;
    own.load_from(a.conv, token, part * block.values + block.channel + lane % kRows);
    if (warp >= kGateWarp) row.prefetch_state(read);
  }
  s.row_made.wait(0);
  const bool gates = warp >= kGateWarp;
  const char* const weights =
      gates ? s.gate_weights[split] + lane / 4 % 2 * kPitch : s.weights[warp] + lane / 4 * kPitch;
  s.full[warp].wait(0);
  if (!token.is_one()) {
    if (blockIdx.x == 0 && block.thread() == 0) report_not_one_token(a.fault, 0, token.begin, token.end);
    return;
  }
  block.multiply(weights, split, s.sums[warp]);
  __syncwarp();
  if (warp >= kGatedWarp && !gates) block.fetch_gate();
  __syncthreads();
  if (team) {
    row.load_state(read);
    row.step(read < 0);
    row.store_state(token.checked(token.write, a.slots));
  } else if (!gates) {
    block.send_keys(own, token);
    if (warp >= kGatedWarp) block.multiply_gate();
  } else if (warp == kGateWarp) {
    block.make_values(own, token);
  } else {
    block.make_gates();
    if (blockIdx.x == 0 && lane == 0) {
      token.check(a.conv.fault, a.conv.slots);
      token.check(a.fault, a.slots);
    }
  }
}

bool row_of(const Tensor& tensor, DType type, int64_t width) {
  return tensor && tensor.dtype == type && tensor.shape[0] == 1 && tensor.size() == width && aligned(tensor, 8);
}

bool fit(const MixerOps& ops, Cuda& cuda) {
  const auto& [norm, input, conv, gates, attention] = ops;
  if (cuda.properties.capability < 90 || !delta_step_serves(conv, gates, attention, cuda)) return false;
  const DType type = norm.x.dtype;
  const int64_t heads = attention.v.shape[1], values = heads * kHeadWidth, outputs = 4 * values + 2 * heads;
  return attention.sequences.rows == 1 && attention.q.shape[1] == heads && conv.silu && row_of(norm.x, type, kHidden) &&
         norm.group_size == kHidden && norm.weight.shape[0] == kHidden && aligned(norm.weight, 4) && !norm.gate &&
         row_of(norm.out, type, kHidden) &&
         (!norm.residual || (row_of(norm.residual, type, kHidden) && row_of(norm.sum, type, kHidden))) &&
         row_of(input.out, type, outputs) && !input.bias && begins_at(conv.x, input.out, 0) &&
         begins_at(gates.b, input.out, 4 * values) && begins_at(gates.a, input.out, 4 * values + heads) &&
         apart({norm.out, norm.sum, input.out, conv.out, gates.g, gates.beta, attention.out},
               {norm.x, norm.residual}) &&
         // Blocks write them in any order.
         apart({conv.out, gates.g, gates.beta, attention.out}, {norm.out, norm.sum, input.out}) &&
         apart({input.out}, {norm.out, norm.sum});
}

}  // namespace

bool mix_delta(const MixerOps& ops, Cuda& cuda) {
  if (!fit(ops, cuda)) return false;
  const auto& [norm, input, conv, gates, attention] = ops;
  cuda.op = kOpIndex<Matmul>;
  const Product product = product_of(input);
  if (inputs_of_warp(product, cuda) != kSplit) return false;
  bool serves = false;
  for_float(norm.x.dtype, [&](auto t) {
    using T = decltype(t);
    if constexpr (sizeof(T) == 2) {
      serves = cuda.properties.shared_memory >= static_cast<int>(sizeof(Shared<T>));
      if (!serves) return;
      const auto heads = static_cast<int>(attention.v.shape[1]);
      cuda.op = kOpIndex<LinearAttention>;
      Fault* const fault = cuda.fault();
      cuda.op = kOpIndex<CausalConv>;
      const DeltaMixer<T> a{rms_norm_groups<T>(norm),
                            static_cast<const T*>(product.weights),
                            input.out.as<T>(),
                            conv_of<T>(conv, cuda),
                            delta_gates_body<T>(gates),
                            view_of(attention.sequences),
                            StridedRows<T>(attention.out),
                            attention.state.as<float>(),
                            attention.state.stride0,
                            static_cast<int>(attention.state.shape[0]),
                            heads,
                            attention.scale,
                            fault};
      launch_as(LaunchHow{.early = true, .cluster = kCluster}, cuda, mix<T>,
                dim3(static_cast<unsigned>(heads * kCluster)), dim3(kThreads), sizeof(Shared<T>), a);
    }
  });
  return serves;
}

}  // namespace linattn::cuda
