#include "core/queue.h"

#include <cstring>

namespace linattn {
namespace {

constexpr size_t kHeader = 3;

// A pointer as two exact doubles.
void put_pointer(Task* task, double out[2]) {
  const auto bits = reinterpret_cast<uintptr_t>(task);
  out[0] = static_cast<double>(static_cast<uint64_t>(bits) >> 32);
  out[1] = static_cast<double>(static_cast<uint64_t>(bits) & 0xffffffffu);
}

Task* get_pointer(const double in[2]) {
  const uint64_t bits = (static_cast<uint64_t>(in[0]) << 32) | static_cast<uint64_t>(in[1]);
  return reinterpret_cast<Task*>(static_cast<uintptr_t>(bits));
}

}  // namespace

Queue::Queue(Device& device, TensorTable& table) : device_(device), table_(table) {
  device.queue = this;
  thread_ = std::thread([this] { loop(); });
}

Queue::~Queue() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Queue::push(const std::shared_ptr<Environment>& environment, int what, const double* payload, size_t count) {
  bool was_empty;
  {
    std::lock_guard lock(mutex_);
    if (!environment->ended.load(std::memory_order_relaxed)) {
      changed_ = environments_.emplace(environment->id, environment).second || changed_;
    }
    was_empty = pending_.empty();
    const double header[kHeader] = {static_cast<double>(kHeader + count), static_cast<double>(what),
                                    static_cast<double>(environment->id)};
    pending_.insert(pending_.end(), header, header + kHeader);
    pending_.insert(pending_.end(), payload, payload + count);
    waiting_.fetch_add(1, std::memory_order_relaxed);
  }
  if (was_empty) wake_.notify_one();
}

void Queue::op(const std::shared_ptr<Environment>& environment, int index, const double* fields, size_t count) {
  push(environment, index, fields, count);
}

void Queue::release(const std::shared_ptr<Environment>& environment, const double* ids, size_t count) {
  if (count > 0) push(environment, kRelease, ids, count);
}

void Queue::task(const std::shared_ptr<Environment>& environment, std::unique_ptr<Task> task) {
  double payload[2];
  put_pointer(task.release(), payload);
  push(environment, kTask, payload, 2);
}

void Queue::forget(const std::shared_ptr<Environment>& environment) {
  std::lock_guard lock(mutex_);
  changed_ = environments_.erase(environment->id) > 0 || changed_;
}

void Queue::settle() { std::lock_guard lock(running_); }

void Queue::execute(const double* record) {
  const int what = static_cast<int>(record[1]);
  const double* payload = record + kHeader;
  if (what == kRelease) {
    std::lock_guard lock(running_);
    for (const double* id = payload; id < record + static_cast<size_t>(record[0]); id++) table_.drop(*id);
    return;
  }
  const auto known = known_.find(static_cast<int32_t>(record[2]));
  const bool ended = known == known_.end() || known->second->ended.load(std::memory_order_acquire);
  if (what == kTask) {
    // Tasks that run a list of commands take `running_` themselves, one command at a time.
    std::unique_ptr<Task> task(get_pointer(payload));
    if (task->always() || !ended) task->run(device_, table_);
    return;
  }
  std::lock_guard lock(running_);
  if (ended || known->second->ended.load(std::memory_order_acquire)) return;
  op_table()[static_cast<size_t>(what)].execute(payload, device_, table_);
}

bool Queue::replay(const std::vector<double>& records, const Environment& environment) {
  const auto& ops = op_table();
  bool all = true;
  for (size_t at = 0; at < records.size(); at += static_cast<size_t>(records[at])) {
    std::lock_guard lock(running_);
    if (environment.ended.load(std::memory_order_acquire)) return false;
    all = ops[static_cast<size_t>(records[at + 1])].execute(&records[at + kHeader], device_, table_) && all;
  }
  return all;
}

void Queue::loop() {
  std::vector<double> batch;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stop_ || !pending_.empty(); });
      if (pending_.empty()) return;
      batch.swap(pending_);
      if (changed_) known_ = environments_;
      changed_ = false;
    }
    for (size_t at = 0; at < batch.size(); at += static_cast<size_t>(batch[at])) {
      execute(&batch[at]);
      waiting_.fetch_sub(1, std::memory_order_relaxed);
    }
    batch.clear();
  }
}

}  // namespace linattn
