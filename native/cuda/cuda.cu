#include <algorithm>

#include "cuda/cuda.h"
#include "cuda/error.h"

namespace linattn::cuda {
namespace {

constexpr size_t kAlign = 256;
constexpr size_t kBlockBytes = size_t{8} << 20;

}  // namespace

Cuda::~Cuda() {
  for (Block& block : blocks_) cudaFree(block.data);
}

void* Cuda::scratch(size_t bytes) {
  bytes = (std::max<size_t>(bytes, 1) + kAlign - 1) / kAlign * kAlign;
  for (Block& block : blocks_) {
    if (block.bytes - block.used < bytes) continue;
    void* p = block.data + block.used;
    block.used += bytes;
    return p;
  }
  // Doubling, so that blocks that have become too small waste no more than the last one.
  const size_t last = blocks_.empty() ? 0 : blocks_.back().bytes;
  const size_t size = (std::max({bytes, kBlockBytes, 2 * last}) + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  void* data = nullptr;
  check(cudaMalloc(&data, size));
  blocks_.push_back({static_cast<char*>(data), size, bytes});
  return data;
}

void Cuda::end_command() {
  for (Block& block : blocks_) block.used = 0;
}

}  // namespace linattn::cuda
