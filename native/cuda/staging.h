// Pinned host memory through which small copies go to and from the device without waiting: a ring of blocks. A block is
// used again once the device has passed the event that was recorded when the ring left it.
#pragma once
#include <array>
#include <cstddef>

#include "cuda/device/platform.cuh"

namespace linattn::cuda {

class Staging {
 public:
  Staging() = default;
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  static constexpr size_t kBlockBytes = size_t{1} << 20;
  // At most kBlockBytes, 64-byte aligned; waits for the device when the ring is full. Holds until what is enqueued on
  // `stream` before the next take() has happened.
  void* take(size_t bytes, cudaStream_t stream);

 private:
  struct Block {
    char* data = nullptr;
    cudaEvent_t passed = nullptr;
    bool waiting = false;
  };
  std::array<Block, 8> blocks_;
  size_t current_ = 0, used_ = 0;
};

}  // namespace linattn::cuda
