#include "cpu/allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "core/error.h"

namespace linattn::cpu {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kMapped = size_t{1} << 20;  // from here on blocks come from mmap, in whole huge pages above 2 MiB
constexpr size_t kCacheLimit = size_t{256} << 20;  // bytes kept for reuse

// Sizes grow in steps of 1/8 of their power of two, so that a kept block fits many later requests.
size_t block_size(size_t bytes) {
  bytes = std::max<size_t>(bytes, 64);
  size_t power = 64;
  while (power * 2 <= bytes) power *= 2;
  const size_t step = std::max<size_t>(power / 8, 64);
  size_t size = (bytes + step - 1) / step * step;
  if (size >= kHugePage) size = (size + kHugePage - 1) / kHugePage * kHugePage;
  return size;
}

}  // namespace

Allocator::~Allocator() { trim(0); }

void* Allocator::map(size_t bytes) {
  if (bytes < kMapped) return std::aligned_alloc(64, bytes);
  // One huge page more than asked, so that the block can start on a huge page's border.
  const size_t slack = bytes >= kHugePage ? kHugePage : 0;
  void* mapped =
      mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  if (!slack) return mapped;
  char* start = static_cast<char*>(mapped);
  char* aligned = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(start) + slack - 1) / slack * slack);
  if (aligned > start) munmap(start, static_cast<size_t>(aligned - start));
  const size_t tail = static_cast<size_t>(start + slack - aligned);
  if (tail) munmap(aligned + bytes, tail);
#ifdef MADV_HUGEPAGE
  madvise(aligned, bytes, MADV_HUGEPAGE);
#endif
  return aligned;
}

void Allocator::unmap(void* data, size_t bytes) {
  if (bytes < kMapped) {
    std::free(data);
  } else {
    munmap(data, bytes);
  }
  reserved_.fetch_sub(bytes, std::memory_order_relaxed);
}

void Allocator::trim(size_t keep) {
  while (cached_ > keep && !cache_.empty()) {
    const auto largest = std::prev(cache_.end());
    cached_ -= largest->first;
    unmap(largest->second, largest->first);
    cache_.erase(largest);
  }
}

void* Allocator::allocate(size_t bytes, bool zeroed, bool counted) {
  const size_t size = block_size(bytes);
  void* data = nullptr;
  const auto kept = cache_.find(size);
  bool fresh = false;
  if (kept != cache_.end()) {
    data = kept->second;
    cached_ -= size;
    cache_.erase(kept);
  } else {
    data = map(size);
    if (!data) {
      trim(0);
      data = map(size);
    }
    if (!data) throw Error("ERR_OUT_OF_MEMORY", "cpu: no memory for a tensor of " + std::to_string(bytes) + " bytes");
    reserved_.fetch_add(size, std::memory_order_relaxed);
    fresh = size >= kMapped;
  }
  if (zeroed) {
    if (!fresh) std::memset(data, 0, bytes);
  } else if (poison_) {
    std::memset(data, 0xff, bytes);
  }
  if (counted) used_.fetch_add(bytes, std::memory_order_relaxed);
  return data;
}

void Allocator::free(void* data, size_t bytes, bool counted) {
  const size_t size = block_size(bytes);
  if (counted) used_.fetch_sub(bytes, std::memory_order_relaxed);
  // A pool's memory is mostly untouched: it is given back, not kept.
  if (!counted && size >= kMapped) {
    unmap(data, size);
    return;
  }
  cache_.emplace(size, data);
  cached_ += size;
  if (cached_ > kCacheLimit) trim(kCacheLimit);
}

}  // namespace linattn::cpu
