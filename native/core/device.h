// What a backend gives the core: memory and op implementations. All but the constructor runs on its queue's thread,
// except memory(), which any thread may ask.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

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
  // Host memory to device and back; complete when they return.
  virtual void copy_in(void* device, const void* host, size_t bytes) = 0;
  virtual void copy_out(void* host, const void* device, size_t bytes) = 0;
  // Runs the op struct of index `op` in op-list.h.
  virtual void run(int op, const void* fields) = 0;

  Queue* queue = nullptr;
  int index = 0;
  std::atomic<uint64_t> commands{0};  // op commands run since the start
};

}  // namespace linattn
