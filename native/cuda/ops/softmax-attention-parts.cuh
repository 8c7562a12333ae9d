// Prefill rows of softmaxAttention whose keys are shared among the blocks of a cluster: what each block leaves of its
// keys in its shared memory, and the sum of them.
#pragma once
#include "cuda/device/cluster.cuh"
#include "cuda/device/warp.cuh"
#include "cuda/ops/softmax-attention.cuh"

namespace linattn::cuda {

constexpr int kKeySharers = 8;     // blocks of a cluster
constexpr int kSharedKeys = 2048;  // a row of fewer keys does not share them

// Of kRows query rows, for kThreads threads of a block.
template <int kRows, int kWidth, int kThreads>
struct AttentionParts {
  static constexpr int kStride = kWidth + 8;  // no bank conflicts
  float values[kRows * kStride];              // sums of e^(scale * (score - max)) * value
  float max[kRows], sum[kRows];               // of the scores before they are scaled, of e^(scale * (score - max))

  __device__ __forceinline__ float2& pair(int row, int column) {
    return *reinterpret_cast<float2*>(values + row * kStride + column);
  }

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  // The output of this block's share of the first `rows` rows, from what the first `parts` blocks of the cluster have.
  // at(r): where row r goes.
  template <class T, class At>
  __device__ __forceinline__ void merge(const AttentionView& x, const At& at, int rows, int parts, int rank,
                                        int thread) const {
    constexpr int kShare = kRows / kKeySharers;
    const int lane = thread % kWarp;
    for (int r = rank * kShare + thread / kWarp; r < min(rows, (rank + 1) * kShare); r += kThreads / kWarp) {
      const float own_max = lane < parts ? load_of_block(max + r, lane) : -INFINITY;
      const float own_sum = lane < parts ? load_of_block(sum + r, lane) : 0.0f;
      const float top = warp_max(own_max);
      const float own_weight = own_sum == 0 ? 0.0f : exp2_fast((own_max - top) * x.scale * kLog2E);
      const float total = warp_sum(own_weight * own_sum);
      const OutputRow to = at(r);
      const float share = finish_row(x, to, top * x.scale, total, lane == 0);
      T* const out = static_cast<T*>(x.out) + to.token * x.out_stride + static_cast<int64_t>(to.head) * x.width;
      for (int column = 2 * lane; column < kWidth; column += 2 * kWarp) {
        float2 pairs[kKeySharers];
#pragma unroll
        for (int part = 0; part < kKeySharers; part++) {
          const auto* from = reinterpret_cast<const float2*>(values + r * kStride + column);
          pairs[part] = part < parts ? load_of_block(from, part) : make_float2(0, 0);
        }
        float2 merged = make_float2(0, 0);
#pragma unroll
        for (int part = 0; part < kKeySharers; part++) {
          const float weight = __shfl_sync(kFullMask, own_weight, part);
          if (weight == 0) continue;
          merged.x += weight * pairs[part].x;
          merged.y += weight * pairs[part].y;
        }
        *reinterpret_cast<uint32_t*>(out + column) = pack_pair<T>(merged.x * share, merged.y * share);
      }
    }
  }
#endif
};

}  // namespace linattn::cuda
