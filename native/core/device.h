// What a backend gives the core: memory and op implementations. All but the constructor runs on its queue's thread,
// except memory() and unpin(), which any thread may call.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/error.h"

namespace linattn {

struct MemoryUse {
  size_t used = 0;      // bytes of bound tensors
  size_t reserved = 0;  // the same plus what the allocator keeps for reuse
  size_t total = 0;     // of the device
};

class Queue;

class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;
  virtual std::string description() const = 0;
  // Throws ERR_OUT_OF_MEMORY. `zeroed`: as zeros. `counted`: as used memory.
  virtual void* allocate(size_t bytes, bool zeroed, bool counted) = 0;
  virtual void free(void* data, size_t bytes, bool counted) = 0;
  virtual MemoryUse memory() const = 0;
  // A pool's memory is mapped but counts as used only as far as its owner says so: adds `bytes` (may be negative).
  virtual void charge(int64_t bytes) = 0;
  // True when a device pointer is a host pointer too.
  virtual bool host_memory() const = 0;
  // `host` is free again when it returns.
  virtual void copy_in(void* device, const void* host, size_t bytes) = 0;
  using Done = std::function<void(std::shared_ptr<const Error>)>;
  // Memory of the host that copy_in_pinned() takes from without a copy on the way, until unpin(). Throws when the
  // system does not pin it; it is copied as any other then.
  virtual void pin(const void*, size_t) {}
  // Waits for the copies out of it that are on their way; nothing for memory that is not pinned.
  virtual void unpin(const void*) {}
  // copy_in() out of pinned memory: calls `done`, once and from any thread, when `host` is free again; not when it
  // throws.
  virtual void copy_in_pinned(void* device, const void* host, size_t bytes, Done done) {
    copy_in(device, host, bytes);
    done(nullptr);
  }
  // `host` is filled once a later after() is done.
  virtual void copy_out(void* host, const void* device, size_t bytes) = 0;
  // Calls `done`, once and from any thread, when everything before has happened; with the error that only shows then,
  // if there is one. Where commands run as they are called: at once.
  virtual void after(Done done) = 0;
  // A stretch of time as the device sees it, one at a time: `*milliseconds` is filled once a later after() is done.
  virtual void time_begin() = 0;
  virtual void time_end(double* milliseconds) = 0;
  // Runs the op struct of index `op` in op-list.h.
  virtual void run(int op, const void* fields) = 0;
  // A device that can keep a list of commands as a graph of its own: what runs between the first two is recorded, not
  // run. record_begin() is false where it cannot; record_end() is null when what ran cannot be recorded.
  virtual bool record_begin() { return false; }
  virtual void* record_end() { return nullptr; }
  virtual void launch(void*) {}
  virtual void destroy(void*) {}

  Queue* queue = nullptr;
  int index = 0;
  std::atomic<uint64_t> commands{0};  // op commands run since the start
};

}  // namespace linattn
