#include "binding/runtime.h"

#include "core/plugin-device.h"
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

Runtime::Runtime() { add(cpu::make_cpu_device()); }

Runtime::~Runtime() {
  for (auto& queue : queues_) queue.reset();
}

void Runtime::add(std::unique_ptr<Device> device) {
  const size_t index = device_count();
  device->index = static_cast<int>(index);
  queues_[index] = std::make_unique<Queue>(*device, table_);
  devices_[index] = std::move(device);
  count_.store(index + 1, std::memory_order_release);
}

Device* Runtime::device(size_t index) const { return index < device_count() ? devices_[index].get() : nullptr; }

std::string Runtime::open_cuda(const std::string& file) {
  std::lock_guard lock(mutex_);
  if (cuda_opened_) return cuda_unavailable_;
  cuda_opened_ = true;
  PluginDevices found = open_plugin(file, "cuda");
  cuda_unavailable_ = found.unavailable;
  for (auto& device : found.devices) {
    if (device_count() < kMostDevices) add(std::move(device));
  }
  return cuda_unavailable_;
}

std::shared_ptr<Environment> Runtime::enter() {
  std::lock_guard lock(mutex_);
  auto environment = std::make_shared<Environment>();
  environment->id = next_environment_++;
  return environment;
}

void Runtime::leave(const std::shared_ptr<Environment>& environment) {
  environment->ended.store(true, std::memory_order_release);
  for (size_t i = 0; i < device_count(); i++) queues_[i]->settle();
  for (const double id : table_.live_of(environment->id)) {
    table_.entry(id).device->queue->release(environment, &id, 1);
  }
  for (size_t i = 0; i < device_count(); i++) queues_[i]->forget(environment);
}

}  // namespace linattn
