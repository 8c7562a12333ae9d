#include <algorithm>
#include <string>

#include "cuda/allocator.h"
#include "cuda/error.h"

namespace linattn::cuda {
namespace {

constexpr size_t kSmall = size_t{1} << 20;
// Kept also where nothing is handed out: ops on small tensors of a program that has no others ask for no memory anew.
constexpr size_t kKeptIdle = size_t{64} << 20;

// Eight sizes between powers of two up to 1 MiB, steps of 2 MiB above: blocks of nearly the same size are one
// another's.
size_t block_size(size_t bytes) {
  bytes = std::max<size_t>(bytes, 512);
  if (bytes > kSmall) return (bytes + 2 * kSmall - 1) / (2 * kSmall) * (2 * kSmall);
  size_t step = 64;
  while (step * 16 < bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

}  // namespace

Allocator::~Allocator() { trim(); }

void Allocator::trim() {
  if (cache_.empty()) return;
  cudaDeviceSynchronize();  // a kept block may still be in use by enqueued commands
  for (const auto& [size, data] : cache_) {
    cudaFree(data);
    reserved_.fetch_sub(size, std::memory_order_relaxed);
  }
  cache_.clear();
  kept_ = 0;
}

void* Allocator::reserve(size_t size) {
  void* data = nullptr;
  const cudaError_t result = cudaMalloc(&data, size);
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check(result);
  return data;
}

void* Allocator::allocate(size_t bytes, bool counted) {
  const size_t size = block_size(bytes);
  void* data = nullptr;
  const auto kept = cache_.find(size);
  if (kept != cache_.end()) {
    data = kept->second;
    cache_.erase(kept);
    kept_ -= size;
  } else {
    data = reserve(size);
    if (!data) {
      trim();
      data = reserve(size);
    }
    if (!data) throw Error("ERR_OUT_OF_MEMORY", "cuda: no memory for a tensor of " + std::to_string(bytes) + " bytes");
    reserved_.fetch_add(size, std::memory_order_relaxed);
  }
  if (counted) used_.fetch_add(bytes, std::memory_order_relaxed);
  return data;
}

void Allocator::free(void* data, size_t bytes, bool counted) {
  if (counted) used_.fetch_sub(bytes, std::memory_order_relaxed);
  const size_t size = block_size(bytes);
  cache_.emplace(size, data);
  kept_ += size;
  if (kept_ > kKeptIdle && kept_ == reserved()) trim();
}

}  // namespace linattn::cuda
