// Threads of the cpu device. Tasks are handed out one by one in rising order; no result may depend on which thread runs
// a task or how many there are (no reduction is split by thread count). Idle threads spin at most 20 us, then sleep.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace linattn::cpu {

class ThreadPool {
 public:
  // Fewer when the system refuses to start so many.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs body(task, thread) for task in [0, tasks), thread in [0, threads()); returns when all are done. The calling
  // thread takes part as thread 0. After an exception no more tasks are handed out, and that of the lowest task is
  // rethrown here: the one that a single thread would have met. Not reentrant.
  template <class Body>
  void run(int64_t tasks, Body&& body) {
    struct Context {
      std::remove_reference_t<Body>* body;
    } context{&body};
    run_tasks(
        tasks, [](void* c, int64_t task, int thread) { (*static_cast<Context*>(c)->body)(task, thread); }, &context);
  }

 private:
  using Call = void (*)(void*, int64_t, int);
  void run_tasks(int64_t tasks, Call call, void* context);
  void work(int thread);
  void drain(int thread);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;  // workers: a new run, or the end
  std::condition_variable left_;  // run_tasks: the last worker has left the run
  std::atomic<uint64_t> epoch_{0};
  std::atomic<int> joined_{0};  // workers in the current run; changed under mutex_
  std::atomic<int64_t> next_{0};
  int64_t tasks_ = 0;
  Call call_ = nullptr;
  void* context_ = nullptr;
  bool open_ = false;  // workers may still join the current run
  bool stop_ = false;
  std::exception_ptr error_;
  int64_t error_task_ = 0;
};

}  // namespace linattn::cpu
