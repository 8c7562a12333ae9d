#include "binding/checksums.h"

#include <algorithm>
#include <cstring>
#include <system_error>

#include "core/xxh64.h"

namespace linattn::binding {

Checksums::Checksums() {
  const size_t wanted = std::clamp<size_t>(std::thread::hardware_concurrency() / 4, 1, kMostThreads);
  threads_.reserve(wanted);
  try {
    while (threads_.size() < wanted) threads_.emplace_back([this] { loop(); });
  } catch (const std::system_error&) {
    // Fewer do the same.
    if (threads_.empty()) throw Error("ERR_OUT_OF_MEMORY", "the system gave no thread for checksums");
  }
}

Checksums::~Checksums() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Checksums::enqueue(What what, char* block, size_t bytes, uint64_t seed, double request,
                        std::shared_ptr<Completions> completions) {
  {
    std::lock_guard lock(mutex_);
    jobs_.push_back({what, block, bytes, seed, request, std::move(completions)});
  }
  wake_.notify_one();
}

void Checksums::loop() {
  for (;;) {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
    if (stop_) return;
    const Job job = jobs_.front();
    jobs_.pop_front();
    lock.unlock();
    Completion completion;
    completion.request = job.request;
    char* const end = job.block + job.bytes - kBytes;
    const uint64_t checksum = xxh64(job.block, job.bytes - kBytes, job.seed);
    if (job.what == What::kMake) {
      std::memcpy(end, &checksum, kBytes);
    } else if (std::memcmp(end, &checksum, kBytes) != 0) {
      completion.error = std::make_shared<Error>("ERR_SNAPSHOT_CORRUPT", "a block is not as it was written");
    }
    job.completions->finish(std::move(completion));
  }
}

}  // namespace linattn::binding
