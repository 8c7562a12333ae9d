// Tiles of whole chunks by the copy engine of Hopper, for the scans without records.
#pragma once
#include "cuda/device/bulk.cuh"
#include "cuda/ops/linear-attention-chunks.cuh"
#ifndef LINATTN_CUDA_EMULATOR
#include "cuda/device/tensor-map.cuh"
#endif

namespace linattn::cuda::chunks {

// As a kernel argument: boxes of a chunk's tokens x the key width of a head, or x the state rows of a block.
struct ChunkBoxes {
#ifndef LINATTN_CUDA_EMULATOR
  CUtensorMap q, k, v;
#endif
  bool made;  // else the threads of a block copy
};
struct NoBoxes {};

// For blocks of `rows` state rows.
inline ChunkBoxes make_chunk_boxes([[maybe_unused]] const Call& call, [[maybe_unused]] int rows) {
  ChunkBoxes boxes{};
#ifndef LINATTN_CUDA_EMULATOR
  const LinearSizes& x = call.sizes;
  constexpr int kPanel = kPanelBytes / kTokens / 2;  // channels
  // Channels of a panel, tokens, panels of all heads.
  const auto make = [&](const bfloat16* data, int64_t stride, int channels, int box, CUtensorMap& map) {
    const uint64_t token = 2 * static_cast<uint64_t>(stride);
    const TensorBoxes tensor{data,
                             {kPanel, static_cast<uint64_t>(x.tokens), static_cast<uint64_t>(channels / kPanel), 1, 1},
                             {token, 2 * kPanel, token, token},
                             {kPanel, kTokens, static_cast<uint32_t>(box / kPanel), 1, 1}};
    return make_tensor_map(tensor, map);
  };
  boxes.made = make(call.q, call.q_stride, x.Hq * x.K, x.K, boxes.q) &&
               make(call.k, call.k_stride, x.Hk * x.K, x.K, boxes.k) &&
               make(call.v, call.v_stride, x.Hv * x.V, rows, boxes.v);
#endif
  return boxes;
}

}  // namespace linattn::cuda::chunks
