// What the process shares: devices with their queues, and the table of tensors. Held by every environment that uses the
// addon; the last one to end stops the threads.
#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "core/queue.h"

namespace linattn {

class Runtime {
 public:
  // The process's runtime, made at the first call.
  static std::shared_ptr<Runtime> shared();
  ~Runtime();

  TensorTable& table() { return table_; }
  const std::vector<std::unique_ptr<Device>>& devices() const { return devices_; }
  std::shared_ptr<Environment> enter();
  // Skips what `environment` has queued, waits for its command in flight, frees its tensors.
  void leave(const std::shared_ptr<Environment>& environment);

 private:
  Runtime();

  TensorTable table_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<std::unique_ptr<Queue>> queues_;
  std::mutex mutex_;
  int32_t next_environment_ = 0;  // never used again: queued commands may still name an ended one
};

}  // namespace linattn
