#include "cpu/thread-pool.h"

#include <algorithm>
#include <system_error>

#include "core/spin.h"

namespace linattn::cpu {

ThreadPool::ThreadPool(int threads) {
  workers_.reserve(static_cast<size_t>(std::max(threads - 1, 0)));
  try {
    for (int thread = 1; thread < threads; thread++) workers_.emplace_back([this, thread] { work(thread); });
  } catch (const std::system_error&) {
    // The limit of processes or memory is reached.
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    epoch_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::drain(int thread) {
  for (;;) {
    const int64_t task = next_.fetch_add(1, std::memory_order_relaxed);
    if (task >= tasks_) return;
    try {
      call_(context_, task, thread);
    } catch (...) {
      next_.store(tasks_, std::memory_order_relaxed);
      std::lock_guard lock(mutex_);
      if (!error_ || task < error_task_) {
        error_ = std::current_exception();
        error_task_ = task;
      }
    }
  }
}

void ThreadPool::work(int thread) {
  uint64_t seen = 0;
  for (;;) {
    const auto changed = [&] { return epoch_.load(std::memory_order_acquire) != seen; };
    if (!spin(changed)) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, changed);
    }
    {
      std::lock_guard lock(mutex_);
      seen = epoch_.load(std::memory_order_relaxed);
      if (stop_) return;
      if (!open_) continue;
      joined_.fetch_add(1, std::memory_order_relaxed);
    }
    drain(thread);
    {
      std::lock_guard lock(mutex_);
      if (joined_.fetch_sub(1, std::memory_order_release) == 1) left_.notify_one();
    }
  }
}

void ThreadPool::run_tasks(int64_t tasks, Call call, void* context) {
  if (tasks <= 0) return;
  if (workers_.empty() || tasks == 1) {
    for (int64_t task = 0; task < tasks; task++) call(context, task, 0);
    return;
  }
  {
    std::lock_guard lock(mutex_);
    tasks_ = tasks;
    call_ = call;
    context_ = context;
    next_.store(0, std::memory_order_relaxed);
    open_ = true;
    epoch_.fetch_add(1, std::memory_order_release);
  }
  if (tasks > threads()) {
    wake_.notify_all();
  } else {
    for (int64_t i = 1; i < tasks; i++) wake_.notify_one();
  }
  drain(0);
  {
    // Nothing is left to hand out: a worker that has not come yet is not waited for.
    std::lock_guard lock(mutex_);
    open_ = false;
  }
  const auto done = [&] { return joined_.load(std::memory_order_acquire) == 0; };
  if (!spin(done)) {
    std::unique_lock lock(mutex_);
    left_.wait(lock, done);
  }
  std::exception_ptr error;
  {
    std::lock_guard lock(mutex_);
    std::swap(error, error_);
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace linattn::cpu
