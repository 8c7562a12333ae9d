// Checksums of blocks of host memory, made and checked on threads of their own, begun in the order of the calls.
#pragma once
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "binding/completions.h"

namespace linattn::binding {

class Checksums {
 public:
  Checksums();
  // Waits for the blocks in work; later ones are dropped.
  ~Checksums();
  Checksums(const Checksums&) = delete;
  Checksums& operator=(const Checksums&) = delete;

  static constexpr size_t kBytes = 8;  // of a checksum: the last ones of a block

  enum class What { kMake, kCheck };
  // Writes the XXH64 of all but a block's last 8 bytes there, or completes with ERR_SNAPSHOT_CORRUPT when another one
  // is there. `block` has at least 8 bytes and stays until `request` completes.
  void enqueue(What what, char* block, size_t bytes, uint64_t seed, double request,
               std::shared_ptr<Completions> completions);

 private:
  // One thread reads a block more slowly than a store gives it: a quarter of the processors, at most so many.
  static constexpr size_t kMostThreads = 4;

  struct Job {
    What what;
    char* block;
    size_t bytes;
    uint64_t seed;
    double request;
    std::shared_ptr<Completions> completions;
  };

  void loop();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;  // guarded by mutex_
  bool stop_ = false;     // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace linattn::binding
