// The thread pool with 1 to 8 threads on however few cores there are: every task once, no lost wake-up, the error of a
// single thread, and threads that sleep when idle. Meant for ThreadSanitizer too.
#include "cpu/thread-pool.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <random>
#include <stdexcept>

#include "core/error.h"
#include "test/check.h"

namespace linattn::cpu {
namespace {

double seconds_of_cpu() {
  rusage use{};
  getrusage(RUSAGE_SELF, &use);
  const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + 1e-6 * t.tv_usec; };
  return seconds(use.ru_utime) + seconds(use.ru_stime);
}

void pause_for(std::chrono::microseconds time) { std::this_thread::sleep_for(time); }

// Runs of random sizes and pauses, so that workers are met spinning, falling asleep and asleep.
void every_task_runs_once(int threads, int rounds) {
  ThreadPool pool(threads);
  CHECK(pool.threads() == threads);
  std::mt19937 random(static_cast<unsigned>(threads));
  std::vector<int> done(257);
  for (int round = 0; round < rounds; round++) {
    const int64_t tasks = random() % (round % 8 == 0 ? 257 : 12);
    std::fill(done.begin(), done.end(), 0);
    bool threads_valid = true;
    // The writes need no atomics: a task has one thread, and run() publishes them.
    pool.run(tasks, [&](int64_t task, int thread) {
      done[static_cast<size_t>(task)]++;
      if (thread < 0 || thread >= threads) threads_valid = false;
    });
    int64_t total = 0;
    for (int64_t i = 0; i < 257; i++) {
      CHECK(done[static_cast<size_t>(i)] == (i < tasks ? 1 : 0));
      total += done[static_cast<size_t>(i)];
    }
    CHECK(total == tasks && threads_valid);
    if (round % 64 == 0) pause_for(std::chrono::microseconds(random() % 60));
  }
}

void threads_share_the_work() {
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  // Each of the two tasks waits for the other: one thread alone would never end.
  for (int round = 0; round < 50; round++) {
    arrived = 0;
    pool.run(2, [&](int64_t, int) {
      arrived++;
      while (arrived < 2) std::this_thread::yield();
    });
    if (round % 5 == 0) pause_for(std::chrono::milliseconds(1));  // the worker sleeps
  }
  CHECK(arrived == 2);
}

void the_lowest_error_is_rethrown(int threads) {
  ThreadPool pool(threads);
  for (int round = 0; round < 200; round++) {
    std::atomic<int> later{0};
    std::string message;
    try {
      pool.run(1000, [&](int64_t task, int) {
        if (task == 3) {
          pause_for(std::chrono::microseconds(round % 20));
          throw Error("ERR_ARGUMENT", "task 3");
        }
        if (task == 4 || task == 700) throw std::runtime_error("another");
        if (task > 100) later++;
      });
    } catch (const std::exception& e) {
      message = e.what();
    }
    CHECK_NOTE(message == "task 3", message);
    CHECK(later < 1000 - 100);
    int64_t sum = 0;
    std::mutex mutex;
    pool.run(10, [&](int64_t task, int) {
      std::lock_guard lock(mutex);
      sum += task;
    });
    CHECK(sum == 45);  // the pool works on, and the old error is gone
  }
}

void idle_threads_sleep() {
  ThreadPool pool(8);
  pool.run(100, [](int64_t, int) {});
  pause_for(std::chrono::milliseconds(20));
  const double before = seconds_of_cpu();
  pause_for(std::chrono::milliseconds(300));
  CHECK_NOTE(seconds_of_cpu() - before < 0.03, std::to_string(seconds_of_cpu() - before) + " s used while idle");
}

// A worker that does not come (its core is taken) must not hold up a run that is done without it.
void pools_come_and_go() {
  for (int round = 0; round < 200; round++) {
    ThreadPool pool(1 + round % 8);
    if (round % 3) pool.run(round % 16, [](int64_t, int) {});
  }
}

#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
void a_refused_thread_makes_a_smaller_pool() {
  if (geteuid() == 0 && setuid(65534) != 0) return;  // root has no limit of processes
  const rlimit none{1, 1};
  setrlimit(RLIMIT_NPROC, &none);
  ThreadPool pool(8);
  std::atomic<int> count{0};
  pool.run(100, [&](int64_t, int) { count++; });
  CHECK(count == 100);
  CHECK_NOTE(pool.threads() == 1, std::to_string(pool.threads()));
}
#endif

}  // namespace
}  // namespace linattn::cpu

int main() {
  using namespace linattn::cpu;
  for (int threads = 1; threads <= 8; threads++) every_task_runs_once(threads, 4000);
  threads_share_the_work();
  for (const int threads : {1, 2, 3, 8}) the_lowest_error_is_rethrown(threads);
  idle_threads_sleep();
  pools_come_and_go();
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
  // In a process of its own, which loses its rights.
  const pid_t child = fork();
  if (child == 0) {
    a_refused_thread_makes_a_smaller_pool();
    _exit(linattn::failures ? 1 : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
#endif
  return linattn::report("thread-pool");
}
