// Products of few rows without tensor cores, for float32 weights, and for float16 ones whose activations are of another
// type.
#include "cuda/device/warp.cuh"
#include "cuda/ops/matmul-few-rows.cuh"

namespace linattn::cuda {
namespace few_rows {
namespace {

// Lane l takes kWidth inputs of every 32 kWidth. kOutputs outputs a warp share what it reads of x.
template <class X, class W, int kRows, bool aligned>
__global__ void __launch_bounds__(kThreads) multiply(const __grid_constant__ Product p, int splits) {
  constexpr int kWidth = 16 / sizeof(W), kStepInputs = kWarp * kWidth;
  constexpr int kOutputs = kRows > 4 ? 4 : 2, kSteps = kRows > 4 ? 2 : 4;
  __shared__ float shared[kWarps][kRows * kOutputs];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, split = warp % splits;
  const int64_t n0 = (static_cast<int64_t>(blockIdx.x) * (kWarps / splits) + warp / splits) * kOutputs;
  const int64_t padded_depth = p.layout.padded_depth;
  const int steps = static_cast<int>(ceil_div(padded_depth, kStepInputs));
  const int share = static_cast<int>(ceil_div(steps, splits));
  const int end = n0 < p.outputs ? min(steps, (split + 1) * share) : 0;
  const W* weights = static_cast<const W*>(p.weights) + n0 * padded_depth;

  wait_for_inputs();
  float sums[kRows][kOutputs] = {};
  for (int step0 = split * share; step0 < end; step0 += kSteps) {
    uint32_t words[kSteps][kOutputs][4];
#pragma unroll
    for (int s = 0; s < kSteps; s++) {
      const int64_t k = static_cast<int64_t>(step0 + s) * kStepInputs + lane * kWidth;
#pragma unroll
      for (int i = 0; i < kOutputs; i++) {
        load_weights<aligned>(words[s][i], weights + i * padded_depth, k, step0 + s < end ? padded_depth : 0);
      }
    }
#pragma unroll
    for (int s = 0; s < kSteps; s++) {
      const int64_t k = static_cast<int64_t>(step0 + s) * kStepInputs + lane * kWidth;
      float values[kOutputs][kWidth];
#pragma unroll
      for (int i = 0; i < kOutputs; i++) {
        W held[kWidth];
        memcpy(held, words[s][i], sizeof(held));
#pragma unroll
        for (int j = 0; j < kWidth; j++) values[i][j] = as_float(held[j]);
      }
#pragma unroll
      for (int row = 0; row < kRows; row++) {
        Pack<X, kWidth> inputs;
        load_inputs<aligned>(inputs, input_row<X>(p, row), k, p.depth);
#pragma unroll
        for (int i = 0; i < kOutputs; i++) {
#pragma unroll
          for (int j = 0; j < kWidth; j++) sums[row][i] = fmaf(as_float(inputs.value[j]), values[i][j], sums[row][i]);
        }
      }
    }
  }

#pragma unroll
  for (int row = 0; row < kRows; row++) {
#pragma unroll
    for (int i = 0; i < kOutputs; i++) {
      const float sum = warp_sum(sums[row][i]);
      if (lane == 0) shared[warp][row * kOutputs + i] = sum;
    }
  }
  __syncthreads();
  if (split != 0) return;
  for (int i = lane; i < kRows * kOutputs; i += kWarp) {
    float sum = 0;
    for (int other = 0; other < splits; other++) sum += shared[warp + other][i];
    store_output<X>(p, i / kOutputs, n0 + i % kOutputs, sum);
  }
}

template <class X, class W, int kRows, bool aligned>
void launch_multiply(const Product& p, Cuda& cuda) {
  constexpr int kOutputs = kRows > 4 ? 4 : 2;
  // Counted as if every warp took two outputs, so that it does not depend on the rows.
  const int splits = splits_of(ceil_div(p.outputs, 2), ceil_div(p.layout.padded_depth, 512 / sizeof(W)), cuda);
  const auto blocks = static_cast<unsigned>(ceil_div(p.outputs, kOutputs * (kWarps / splits)));
  launch_early(cuda, multiply<X, W, kRows, aligned>, blocks, kThreads, 0, p, splits);
}

template <class X, class W>
void multiply_rows(const Product& p, Cuda& cuda) {
  if (!aligned_rows(p, 16 / sizeof(W))) return launch_multiply<X, W, 16, false>(p, cuda);
  if (p.rows == 1) return launch_multiply<X, W, 1, true>(p, cuda);
  if (p.rows == 2) return launch_multiply<X, W, 2, true>(p, cuda);
  if (p.rows <= 4) return launch_multiply<X, W, 4, true>(p, cuda);
  if (p.rows <= 8) return launch_multiply<X, W, 8, true>(p, cuda);
  launch_multiply<X, W, 16, true>(p, cuda);
}

}  // namespace
}  // namespace few_rows

void multiply_few_rows_float(const Product& p, Cuda& cuda) {
  for_float(p.x_type, [&](auto x) {
    using X = decltype(x);
    if (p.layout.dtype == DType::kFloat32) {
      few_rows::multiply_rows<X, float>(p, cuda);
    } else if constexpr (!std::is_same_v<X, float16>) {
      few_rows::multiply_rows<X, float16>(p, cuda);
    }
  });
}

}  // namespace linattn::cuda
