#include "binding/runtime.h"

#include "cpu/cpu-device.h"

namespace linattn {

std::shared_ptr<Runtime> Runtime::shared() {
  static std::mutex mutex;
  static std::weak_ptr<Runtime> current;
  std::lock_guard lock(mutex);
  auto runtime = current.lock();
  if (!runtime) {
    runtime.reset(new Runtime());
    current = runtime;
  }
  return runtime;
}

Runtime::Runtime() {
  devices_.push_back(cpu::make_cpu_device());
  for (size_t i = 0; i < devices_.size(); i++) {
    devices_[i]->index = static_cast<int>(i);
    queues_.push_back(std::make_unique<Queue>(*devices_[i], table_));
  }
}

Runtime::~Runtime() { queues_.clear(); }

std::shared_ptr<Environment> Runtime::enter() {
  std::lock_guard lock(mutex_);
  auto environment = std::make_shared<Environment>();
  environment->id = next_environment_++;
  return environment;
}

void Runtime::leave(const std::shared_ptr<Environment>& environment) {
  environment->ended.store(true, std::memory_order_release);
  for (const auto& queue : queues_) queue->settle();
  for (const double id : table_.live_of(environment->id)) {
    table_.entry(id).device->queue->release(environment, &id, 1);
  }
  for (const auto& queue : queues_) queue->forget(environment);
}

}  // namespace linattn
