// What an op implementation gets to work with: the stream, what the GPU is, memory that lives for one command, and
// where a kernel reports what it finds wrong in the data.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/device/platform.cuh"
#include "cuda/faults.h"

namespace linattn::cuda {

struct Properties {
  int index = 0;
  int capability = 0;  // 90 for 9.0; of the GPU, or of the code that was loaded for it where that is less
  int multiprocessors = 0;
  int shared_memory = 0;  // bytes a block can have, by opting in
  int64_t l2_bytes = 0;
};

// Counters of tickets, and words from one to the next.
constexpr int kTicketCounters = 4, kTicketWords = 64;

class Cuda {
 public:
  explicit Cuda(const Properties& properties) : properties(properties) {}
  ~Cuda();
  Cuda(const Cuda&) = delete;
  Cuda& operator=(const Cuda&) = delete;

  // 256-byte aligned, uninitialised, valid until the command ends (on the stream: until its last kernel ends). Its
  // address never moves once a graph has recorded it: blocks are kept as long as the device.
  void* scratch(size_t bytes);
  template <class T>
  T* scratch_of(size_t count) {
    return static_cast<T*>(scratch(count * sizeof(T)));
  }
  void end_command();

  // Where the kernels of the running op report; a device pointer. See faults.h.
  Fault* fault() const { return faults + op; }

  const Properties properties;
  cudaStream_t stream = nullptr;
  Fault* faults = nullptr;  // one an op
  // Count the shares of a kernel's work that its blocks have taken; 0 between kernels. On the device.
  unsigned* tickets = nullptr;
  int op = 0;              // index in op-list.h of the op that runs
  bool recording = false;  // what runs now goes into a graph: no allocation, no synchronisation, no check of its own

 private:
  struct Block {
    char* data;
    size_t bytes, used;
  };
  std::vector<Block> blocks_;
};

}  // namespace linattn::cuda
