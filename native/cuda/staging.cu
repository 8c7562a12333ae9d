#include "cuda/error.h"
#include "cuda/staging.h"

namespace linattn::cuda {

Staging::~Staging() {
  for (Block& block : blocks_) {
    if (block.passed) cudaEventDestroy(block.passed);
    if (block.data) cudaFreeHost(block.data);
  }
}

void* Staging::take(size_t bytes, cudaStream_t stream) {
  if (used_ + bytes > kBlockBytes) {
    Block& left = blocks_[current_];
    check(cudaEventRecord(left.passed, stream));
    left.waiting = true;
    current_ = (current_ + 1) % blocks_.size();
    used_ = 0;
  }
  Block& block = blocks_[current_];
  if (!block.data) {
    void* data = nullptr;
    check(cudaHostAlloc(&data, kBlockBytes, cudaHostAllocDefault));
    block.data = static_cast<char*>(data);
    check(cudaEventCreateWithFlags(&block.passed, cudaEventDisableTiming));
  }
  if (block.waiting) {
    check(cudaEventSynchronize(block.passed));
    block.waiting = false;
  }
  void* taken = block.data + used_;
  used_ += (bytes + 63) / 64 * 64;
  return taken;
}

}  // namespace linattn::cuda
