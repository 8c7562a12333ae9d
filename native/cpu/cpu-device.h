// The cpu device: always there. Its queue's thread fans each command out over the thread pool.
#pragma once
#include <chrono>
#include <memory>

#include "core/device.h"
#include "cpu/allocator.h"
#include "cpu/cpu.h"

namespace linattn::cpu {

class CpuDevice final : public Device {
 public:
  CpuDevice(Level level, int threads, bool poison) : cpu_(level, threads), allocator_(poison), threads_(threads) {}
  std::string name() const override { return "cpu"; }
  std::string description() const override;
  void* allocate(size_t bytes, bool zeroed, bool counted) override {
    return allocator_.allocate(bytes, zeroed, counted);
  }
  void free(void* data, size_t bytes, bool counted) override { allocator_.free(data, bytes, counted); }
  void charge(int64_t bytes) override { allocator_.charge(bytes); }
  MemoryUse memory() const override;
  bool host_memory() const override { return true; }
  void copy_in(void* device, const void* host, size_t bytes) override;
  void copy_out(void* host, const void* device, size_t bytes) override;
  void after(Done done) override { done(nullptr); }
  void time_begin() override { began_ = std::chrono::steady_clock::now(); }
  void time_end(double* milliseconds) override {
    *milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began_).count();
  }
  void run(int op, const void* fields) override;

  Cpu& cpu() { return cpu_; }
  Level level() const { return cpu_.level; }
  int threads() const { return threads_.load(std::memory_order_relaxed); }
  // Queue thread.
  void set_threads(int threads) {
    cpu_.pool = std::make_unique<ThreadPool>(threads);
    threads_.store(threads, std::memory_order_relaxed);
  }

 private:
  Cpu cpu_;
  Allocator allocator_;
  std::atomic<int> threads_;
  std::chrono::steady_clock::time_point began_;
};

// Level from LINATTN_CPU, threads from LINATTN_THREADS or the cores; LINATTN_POISON=1 fills new memory with NaN.
std::unique_ptr<CpuDevice> make_cpu_device();

}  // namespace linattn::cpu
