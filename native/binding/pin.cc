#include "binding/pin.h"

namespace linattn::binding {
namespace {

struct BeginPin final : Task {
  std::shared_ptr<Pin> pin;
  void run(Device&, TensorTable&) override { pin->begin(); }
};

}  // namespace

void Pin::begin() {
  std::lock_guard lock(mutex_);
  if (ended_) return;
  try {
    device_.pin(data_, bytes_);
  } catch (const Error&) {
    // Slower, not wrong.
  }
}

void Pin::end() {
  std::lock_guard lock(mutex_);
  ended_ = true;
  device_.unpin(data_);
}

std::unique_ptr<Task> pin_task(std::shared_ptr<Pin> pin) {
  auto task = std::make_unique<BeginPin>();
  task->pin = std::move(pin);
  return task;
}

}  // namespace linattn::binding
