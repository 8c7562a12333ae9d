// Products of few rows with tensor cores: activations are the 16 x 16 operand, 8 rows of weights the other, so nothing
// is computed twice and the sums need no shuffles. A lane loads 8 weights that lie together; that the inputs meet in
// another order than in memory changes nothing, as both operands have it.
#pragma once
#include "cuda/device/mma.cuh"
#include "cuda/ops/float-parts.cuh"
#include "cuda/ops/matmul-few-rows.cuh"

namespace linattn::cuda::few_rows {

constexpr int kTileOutputs = 8;
constexpr int kWidth = 8;                // inputs of a lane in a step
constexpr int kStepInputs = 4 * kWidth;  // of a warp

// How values become operands of type P: each activation is the sum of kTerms of them.
template <class X_, class W_, class P_, int kTerms_ = 1>
struct Operands {
  using X = X_;
  using W = W_;
  using P = P_;
  static constexpr int kTerms = kTerms_;
};

// 16-bit weights are operands as they are.
template <class P>
__device__ __forceinline__ void weight_operands(uint32_t (&to)[4], const uint32_t (&words)[4]) {
#pragma unroll
  for (int i = 0; i < 4; i++) to[i] = words[i];
}
// Whole numbers are exact in both 16-bit types.
template <class P>
__device__ __forceinline__ void weight_operands(uint32_t (&to)[4], const uint32_t (&words)[2]) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const uint32_t pair = (words[i / 2] ^ 0x80808080u) >> (i % 2 * 16);
    // 2^23 + q + 128, without a conversion of integers.
    const float low = __uint_as_float((pair & 0xff) | 0x4b000000u) - 8388736.0f;
    const float high = __uint_as_float((pair >> 8 & 0xff) | 0x4b000000u) - 8388736.0f;
    if constexpr (std::is_same_v<P, bfloat16>) {
      to[i] = __float_as_uint(low) >> 16 | (__float_as_uint(high) & 0xffff0000u);
    } else {
      to[i] = pack_pair<P>(low, high);
    }
  }
}

template <class O>
__device__ __forceinline__ void input_operands(uint32_t (&to)[O::kTerms][4], const Pack<typename O::X, kWidth>& x) {
  using P = typename O::P;
  if constexpr (std::is_same_v<typename O::X, P>) {
    memcpy(to[0], x.value, sizeof(to[0]));
  } else {
    float left[kWidth];
#pragma unroll
    for (int i = 0; i < kWidth; i++) left[i] = as_float(x.value[i]);
#pragma unroll
    for (int term = 0; term < O::kTerms; term++) {
      float part[kWidth];
#pragma unroll
      for (int i = 0; i < kWidth; i++) {
        part[i] = O::kTerms == 1 ? left[i] : leading_part(left[i]);
        left[i] = rest_of(left[i], part[i]);
      }
#pragma unroll
      for (int i = 0; i < 4; i++) to[term][i] = pack_pair<P>(part[2 * i], part[2 * i + 1]);
    }
  }
}

template <class O>
__device__ __forceinline__ void multiply_step(float (&sums)[4], const uint32_t (&low)[4], const uint32_t (&high)[4],
                                              const uint32_t (&weights)[4]) {
#pragma unroll
  for (int half = 0; half < 4; half += 2) {
    const uint32_t a[4] = {low[half], high[half], low[half + 1], high[half + 1]};
    const uint32_t b[2] = {weights[half], weights[half + 1]};
    mma_16x8x16<typename O::P>(sums, a, b);
  }
}

// Sums of a split in chains of tensor core instructions that do not wait for one another: the halves of even and of odd
// steps.
struct Chains {
  float sums[2][2][4] = {};

  template <class O>
  __device__ __forceinline__ void multiply(int step, const uint32_t (&low)[4], const uint32_t (&high)[4],
                                           const uint32_t (&weights)[4]) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const uint32_t a[4] = {low[2 * half], high[2 * half], low[2 * half + 1], high[2 * half + 1]};
      const uint32_t b[2] = {weights[2 * half], weights[2 * half + 1]};
      mma_16x8x16<typename O::P>(sums[step % 2][half], a, b);
    }
  }
  __device__ __forceinline__ float total(int i) const {
    return (sums[0][0][i] + sums[0][1][i]) + (sums[1][0][i] + sums[1][1][i]);
  }
};

// A lane's place in 8 rows of weights that begin `pitch` bytes apart.
__device__ __forceinline__ int row_place(int lane, int pitch) { return lane / 4 * pitch + lane % 4 * 16; }

// 16 bytes of shared memory where `wanted`; else `to` stays. Registers that a branch would merge are those loaded into.
__device__ __forceinline__ void load_shared_if(uint4& to, const void* from, bool wanted) {
#ifdef LINATTN_CUDA_EMULATOR
  if (wanted) to = *static_cast<const uint4*>(from);
#else
  asm volatile(
      "{.reg .pred wanted;\n"
      "setp.ne.u32 wanted, %5, 0;\n"
      "@wanted ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];}"
      : "+r"(to.x), "+r"(to.y), "+r"(to.z), "+r"(to.w)
      : "r"(shared_address(from)), "r"(static_cast<uint32_t>(wanted)));
#endif
}

// One row of inputs with 8 rows of weights, both in shared memory, which bounds it: of the operand of inputs only the
// lanes that have the row load. Lanes 0 to 3 get two sums each. `weights`: of the lane; `steps`: even.
template <class T>
__device__ __forceinline__ float2 multiply_row(const char* weights, const T* inputs, int steps, int lane) {
  constexpr int kHeld = 2;
  uint4 w[kHeld], x[kHeld] = {};
  const bool has_row = lane < 4;
  inputs += lane % 4 * kWidth;
#pragma unroll
  for (int i = 0; i < kHeld; i++) {
    w[i] = *reinterpret_cast<const uint4*>(weights + i * kStepInputs * 2);
    load_shared_if(x[i], inputs + i * kStepInputs, has_row);
  }
  Chains chains;
#pragma unroll 1
  for (int left = steps - kHeld;; left -= kHeld) {
    weights += kHeld * kStepInputs * 2;
    inputs += kHeld * kStepInputs;
#pragma unroll
    for (int i = 0; i < kHeld; i++) {
      chains.multiply<Operands<T, T, T>>(i, {x[i].x, x[i].y, x[i].z, x[i].w}, {0, 0, 0, 0},
                                         {w[i].x, w[i].y, w[i].z, w[i].w});
      load_shared_if(w[i], weights + i * kStepInputs * 2, left > 0);
      load_shared_if(x[i], inputs + i * kStepInputs, left > 0 && has_row);
    }
    if (left <= 0) break;
  }
  return make_float2(chains.total(0), chains.total(1));
}

// Steps whose loads are under way at once: 64 bytes of weights a lane, or 128, and no more activations than registers
// hold.
template <class O, int kTiles, bool full, bool aligned>
constexpr int steps_at_once() {
  if (!aligned) return 1;
  constexpr int kWeightBytes = sizeof(typename O::W), kInputBytes = sizeof(typename O::X);
  const int weights = (kTiles == 4 ? 128 : 64) / (kTiles * kWidth * kWeightBytes);
  const int inputs = (kWeightBytes == 1 ? 128 : 256) / (kWidth * (full ? 2 : 1) * kInputBytes);
  return weights < inputs ? weights : inputs;
}

// Blocks that a multiprocessor is to hold at least.
template <class O, bool full, bool aligned>
constexpr int kLeastBlocks = sizeof(typename O::W) == 1 || !aligned ? 2
                             : full                                 ? 3
                                                                    : 4;

// A float32 in three parts takes registers that further tiles would need.
template <class O>
constexpr int kMostTiles = O::kTerms == 1 ? 4 : 2;

// kTiles tiles of outputs a warp. `full`: more than 8 rows of activations.
template <class O, int kTiles, bool full, bool aligned>
__global__ void __launch_bounds__(kThreads, (kLeastBlocks<O, full, aligned>))
    multiply(const __grid_constant__ Product p, int splits) {
  using W = typename O::W;
  using X = typename O::X;
  constexpr int kWords = kWidth * sizeof(W) / 4, kHalves = full ? 2 : 1;
  constexpr int kSteps = steps_at_once<O, kTiles, full, aligned>();
  __shared__ float shared[kWarps][kTiles][4][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, group = lane / 4, place = lane % 4;
  const int split = warp % splits;
  const int64_t tile0 = (static_cast<int64_t>(blockIdx.x) * (kWarps / splits) + warp / splits) * kTiles;
  const int tiles = static_cast<int>(min(ceil_div(p.outputs, kTileOutputs) - tile0, static_cast<int64_t>(kTiles)));
  const int64_t padded_depth = p.layout.padded_depth;
  const int steps = static_cast<int>(ceil_div(padded_depth, kStepInputs));
  const int share = static_cast<int>(ceil_div(steps, splits));
  const int end = tiles > 0 ? min(steps, (split + 1) * share) : 0;
  const W* weights = static_cast<const W*>(p.weights) + (tile0 * kTileOutputs + group) * padded_depth;
  const X* const low_row = input_row<X>(p, group);
  const X* const high_row = input_row<X>(p, group + 8);
  const int steps_of_group = p.layout.groups > 1 ? static_cast<int>(p.layout.group) / kStepInputs : 0;

  float sums[O::kTerms][kTiles][4] = {};
  uint32_t words[kSteps][kTiles][kWords];
  const auto load_words = [&](int step0) {
#pragma unroll
    for (int s = 0; s < kSteps; s++) {
      const int64_t k = static_cast<int64_t>(step0 + s) * kStepInputs + place * kWidth;
#pragma unroll
      for (int tile = 0; tile < kTiles; tile++) {
        const bool present = step0 + s < end && tile < tiles;
        load_weights<aligned>(words[s][tile], weights + tile * kTileOutputs * padded_depth, k,
                              present ? padded_depth : 0);
      }
    }
  };
  // No kernel that may still run writes weights (packWeight).
  let_next_begin();
  load_words(split * share);
  wait_for_inputs();
  for (int step0 = split * share; step0 < end; step0 += kSteps) {
    if (step0 > split * share) load_words(step0);
    Pack<X, kWidth> inputs[kSteps][kHalves];
#pragma unroll
    for (int s = 0; s < kSteps; s++) {
      const int64_t k = static_cast<int64_t>(step0 + s) * kStepInputs + place * kWidth;
      load_inputs<aligned>(inputs[s][0], low_row, k, p.depth);
      if constexpr (full) load_inputs<aligned>(inputs[s][1], high_row, k, p.depth);
    }
#pragma unroll
    for (int s = 0; s < kSteps; s++) {
      if (step0 + s >= end) break;
      uint32_t low[O::kTerms][4], high[O::kTerms][4] = {};
      input_operands<O>(low, inputs[s][0]);
      if constexpr (full) input_operands<O>(high, inputs[s][1]);
#pragma unroll
      for (int tile = 0; tile < kTiles; tile++) {
        uint32_t b[4];
        weight_operands<typename O::P>(b, words[s][tile]);
        if constexpr (sizeof(W) != 1) {
          multiply_step<O>(sums[0][tile], low[0], high[0], b);
        } else {
          // A step lies within a group, as a group is a multiple of 32.
          float scales[2] = {1, 1};
          if (steps_of_group > 0) {
            const int64_t n = (tile0 + min(tile, tiles - 1)) * kTileOutputs + 2 * place;
            load(p.scales + p.layout.scale_index(n, (step0 + s) / steps_of_group), scales);
          }
#pragma unroll
          for (int term = 0; term < O::kTerms; term++) {
            float part[4] = {};
            multiply_step<O>(part, low[term], high[term], b);
#pragma unroll
            for (int i = 0; i < 4; i++) sums[term][tile][i] = fmaf(part[i], scales[i % 2], sums[term][tile][i]);
          }
        }
      }
    }
  }

#pragma unroll
  for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float sum = sums[O::kTerms - 1][tile][i];
#pragma unroll
      for (int term = O::kTerms - 2; term >= 0; term--) sum += sums[term][tile][i];
      sums[0][tile][i] = sum;
      if (splits > 1) shared[warp][tile][i][lane] = sum;
    }
  }
  if (splits > 1) __syncthreads();
  if (split != 0) return;
#pragma unroll
  for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
    for (int i = 0; i < 2 * kHalves; i++) {
      float sum = sums[0][tile][i];
      for (int other = 1; other < splits; other++) sum += shared[warp + other][tile][i][lane];
      store_output<X>(p, group + i / 2 * 8, (tile0 + tile) * kTileOutputs + 2 * place + i % 2, sum);
    }
  }
}

template <class O>
void launch_multiply(const Product& p, Cuda& cuda) {
  const int64_t tiles = ceil_div(p.outputs, kTileOutputs);
  const int splits = splits_of(tiles, ceil_div(p.layout.padded_depth, kStepInputs), cuda);
  const bool aligned = aligned_rows(p, kWidth);
  // Several tiles a warp share what it reads of x, if enough warps are left.
  int tiles_of_warp = !aligned || p.rows <= 4 ? 1 : p.rows <= 8 ? 2 : kMostTiles<O>;
  while (tiles_of_warp > 1 && tiles * splits / tiles_of_warp < kWarps * cuda.properties.multiprocessors) {
    tiles_of_warp /= 2;
  }
  const auto choose = [&](auto full) {
    constexpr bool kFull = decltype(full)::value;
    if (!aligned) return multiply<O, 1, kFull, false>;
    if constexpr (kFull && kMostTiles<O> == 4) {
      if (tiles_of_warp == 4) return multiply<O, 4, true, true>;
    }
    return tiles_of_warp == 2 ? multiply<O, 2, kFull, true> : multiply<O, 1, kFull, true>;
  };
  const auto kernel = p.rows > 8 ? choose(std::true_type{}) : choose(std::false_type{});
  const auto blocks = static_cast<unsigned>(ceil_div(tiles, tiles_of_warp * (kWarps / splits)));
  launch_early(cuda, kernel, blocks, kThreads, 0, p, splits);
}

}  // namespace linattn::cuda::few_rows
