// What an op implementation gets to work with: threads, CPU level and memory that lives for one command.
#pragma once
#include <cstddef>
#include <memory>
#include <vector>

#include "cpu/level.h"
#include "cpu/thread-pool.h"

namespace linattn::cpu {

class Cpu {
 public:
  Cpu(Level cpu_level, int threads) : level(cpu_level), pool(std::make_unique<ThreadPool>(threads)) {}

  // 64-byte aligned, uninitialised, valid until the command ends. Not thread-safe: call before pool->run.
  void* scratch(size_t bytes);
  template <class T>
  T* scratch_of(size_t count) {
    return static_cast<T*>(scratch(count * sizeof(T)));
  }
  void end_command();

  Level level;
  std::unique_ptr<ThreadPool> pool;

 private:
  struct Free {
    void operator()(void* p) const;
  };
  struct Block {
    std::unique_ptr<void, Free> data;
    size_t bytes;
    size_t used;
  };
  std::vector<Block> blocks_;
  size_t least_ = 0;  // bytes of the next block at least
};

}  // namespace linattn::cpu
