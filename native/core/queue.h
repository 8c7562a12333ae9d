// One command queue and one thread a device. A command is a record of doubles: [length, what, environment, payload...],
// `what` >= 0 an op of op-list.h with one double a field (the same record that JavaScript wrote, and that a graph
// keeps).
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "core/op-table.h"

namespace linattn {

// Work that is not an op: reads, writes, files, graphs. Destroyed without run() when its environment has ended, unless
// it must happen always (frees).
struct Task {
  virtual ~Task() = default;
  virtual bool always() const { return false; }
  virtual void run(Device& device, TensorTable& table) = 0;
};

// Who enqueues: an environment of Node (the main thread or a worker). Its commands are skipped once it has ended.
struct Environment {
  int32_t id = 0;
  std::atomic<bool> ended{false};
};

class Queue {
 public:
  Queue(Device& device, TensorTable& table);
  ~Queue();

  void op(const std::shared_ptr<Environment>& environment, int index, const double* fields, size_t count);
  void release(const std::shared_ptr<Environment>& environment, const double* ids, size_t count);
  void task(const std::shared_ptr<Environment>& environment, std::unique_ptr<Task> task);

  // Waits for the command in flight; called after `ended` is set, so that no further command of it runs.
  void settle();
  // After the last command of an ended environment was pushed.
  void forget(const std::shared_ptr<Environment>& environment);
  uint64_t waiting() const { return waiting_.load(std::memory_order_relaxed); }

  // Runs commands of a graph one by one, on the queue's thread; stops when the environment ends. False when one of them
  // did not run.
  bool replay(const std::vector<double>& records, const Environment& environment);
  // Runs `body` as one command on the queue's thread; false when the environment has ended.
  template <class Body>
  bool once(const Environment& environment, Body body) {
    std::lock_guard lock(running_);
    if (environment.ended.load(std::memory_order_acquire)) return false;
    body();
    return true;
  }

 private:
  enum : int { kRelease = -1, kTask = -2 };

  void push(const std::shared_ptr<Environment>& environment, int what, const double* payload, size_t count);
  void loop();
  void execute(const double* record);

  Device& device_;
  TensorTable& table_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<double> pending_;                                             // guarded by mutex_
  std::unordered_map<int32_t, std::shared_ptr<Environment>> environments_;  // by id; guarded by mutex_
  std::unordered_map<int32_t, std::shared_ptr<Environment>> known_;         // the thread's copy
  bool changed_ = false;                                                    // environments_ since the last copy
  std::atomic<uint64_t> waiting_{0};
  std::mutex running_;  // held while a command runs
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace linattn
