// Caching allocator of the cpu device: freed blocks are kept by size and handed out again. Used on the queue's thread;
// the counters may be read by any.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

namespace linattn::cpu {

class Allocator {
 public:
  // `poison`: new memory is filled with NaN patterns (0xff), so that a value nobody wrote shows in tests.
  explicit Allocator(bool poison) : poison_(poison) {}
  ~Allocator();
  void* allocate(size_t bytes, bool zeroed, bool counted);
  void free(void* data, size_t bytes, bool counted);
  void charge(int64_t bytes) { used_.fetch_add(static_cast<size_t>(bytes), std::memory_order_relaxed); }
  size_t used() const { return used_.load(std::memory_order_relaxed); }
  size_t reserved() const { return reserved_.load(std::memory_order_relaxed); }

 private:
  void* map(size_t bytes);
  void unmap(void* data, size_t bytes);
  void trim(size_t keep);

  bool poison_;
  std::multimap<size_t, void*> cache_;  // by block size
  size_t cached_ = 0;
  std::atomic<size_t> used_{0};
  std::atomic<size_t> reserved_{0};
};

}  // namespace linattn::cpu
