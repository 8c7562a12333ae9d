// What the process shares: devices with their queues, and the table of tensors. Held by every environment that uses the
// addon; the last one to end stops the threads.
#pragma once
#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "core/queue.h"

namespace linattn {

class Runtime {
 public:
  // The process's runtime, made at the first call.
  static std::shared_ptr<Runtime> shared();
  ~Runtime();

  TensorTable& table() { return table_; }
  // The cpu and what backends have brought; a device stays at its index. nullptr beyond the last one.
  Device* device(size_t index) const;
  size_t device_count() const { return count_.load(std::memory_order_acquire); }
  // Opens the backend in `file` (an absolute path) at the first call; returns why it has no device, or nothing.
  std::string open_cuda(const std::string& file);
  std::shared_ptr<Environment> enter();
  // Skips what `environment` has queued, waits for its command in flight, frees its tensors.
  void leave(const std::shared_ptr<Environment>& environment);

 private:
  Runtime();

  TensorTable table_;
  void add(std::unique_ptr<Device> device);

  static constexpr size_t kMostDevices = 64;
  std::array<std::unique_ptr<Device>, kMostDevices> devices_;
  std::array<std::unique_ptr<Queue>, kMostDevices> queues_;
  std::atomic<size_t> count_{0};  // of the two
  std::mutex mutex_;
  bool cuda_opened_ = false;      // guarded by mutex_
  std::string cuda_unavailable_;  // guarded by mutex_
  int32_t next_environment_ = 0;  // never used again: queued commands may still name an ended one
};

}  // namespace linattn
