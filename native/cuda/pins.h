// Memory of the host that is pinned for the device, so that copies go straight out of it.
#pragma once
#include <cstddef>
#include <mutex>
#include <vector>

#include "cuda/device/platform.cuh"

namespace linattn::cuda {

class Pins {
 public:
  explicit Pins(int device) : device_(device) {}
  ~Pins();
  Pins(const Pins&) = delete;
  Pins& operator=(const Pins&) = delete;

  // Pins the whole pages of the memory.
  void add(const void* host, size_t bytes);
  // Of add(); waits for the copies out of it. Any thread.
  void remove(const void* host);
  // Enqueues a copy; false when not all of [host, host + bytes) is pinned.
  bool copy(void* to, const void* host, size_t bytes, cudaStream_t stream);

 private:
  struct Pin {
    const void* host;
    char* begin;  // of the pages
    size_t bytes;
    cudaEvent_t copied;  // the last copy out of it
  };

  static void release(const Pin& pin);

  const int device_;
  std::mutex mutex_;
  std::vector<Pin> pins_;  // guarded by mutex_
};

}  // namespace linattn::cuda
