// Caching allocator of a CUDA device. All commands of a device run on one stream, so a block that is given back may be
// handed out at once: whoever gets it enqueues behind whoever had it. What is kept goes back to the driver when there
// is no memory left and, but for a little, when nothing is handed out: a process without a model holds none for others
// to miss. Queue thread, but for the counters.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>

namespace linattn::cuda {

class Allocator {
 public:
  ~Allocator();
  // Uninitialised. Throws ERR_OUT_OF_MEMORY once what was kept for reuse has been given back to the driver in vain.
  void* allocate(size_t bytes, bool counted);
  void free(void* data, size_t bytes, bool counted);
  void charge(int64_t bytes) { used_.fetch_add(static_cast<size_t>(bytes), std::memory_order_relaxed); }
  size_t used() const { return used_.load(std::memory_order_relaxed); }
  size_t reserved() const { return reserved_.load(std::memory_order_relaxed); }

 private:
  void* reserve(size_t size);
  void trim();

  std::multimap<size_t, void*> cache_;  // by block size
  size_t kept_ = 0;                     // bytes of these
  std::atomic<size_t> used_{0};
  std::atomic<size_t> reserved_{0};
};

}  // namespace linattn::cuda
