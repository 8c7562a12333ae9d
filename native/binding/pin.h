// Memory of a JavaScript ArrayBuffer that is pinned for a device, from its task in the queue until end().
#pragma once
#include <memory>
#include <mutex>

#include "core/queue.h"

namespace linattn::binding {

class Pin {
 public:
  Pin(Device& device, const char* data, size_t bytes) : device_(device), data_(data), bytes_(bytes) {}
  Pin(const Pin&) = delete;
  Pin& operator=(const Pin&) = delete;

  Device& device() const { return device_; }
  const char* data() const { return data_; }
  // Queue thread. What cannot be pinned is copied as other memory is.
  void begin();
  // Any thread, before the memory goes; waits for copies on their way. No begin() does anything afterwards.
  void end();

 private:
  Device& device_;
  const char* const data_;
  const size_t bytes_;
  std::mutex mutex_;
  bool ended_ = false;  // guarded by mutex_
};

std::unique_ptr<Task> pin_task(std::shared_ptr<Pin> pin);

}  // namespace linattn::binding
