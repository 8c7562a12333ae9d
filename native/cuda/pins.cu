#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "cuda/error.h"
#include "cuda/pins.h"

namespace linattn::cuda {

Pins::~Pins() {
  for (const Pin& pin : pins_) release(pin);
}

void Pins::add(const void* host, size_t bytes) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto at = reinterpret_cast<uintptr_t>(host);
  const uintptr_t begin = (at + page - 1) / page * page;
  const uintptr_t end = (at + bytes) / page * page;
  if (begin >= end) return;
  Pin pin{host, reinterpret_cast<char*>(begin), end - begin, nullptr};
  check(cudaEventCreateWithFlags(&pin.copied, cudaEventDisableTiming));
  const cudaError_t result = cudaHostRegister(pin.begin, pin.bytes, cudaHostRegisterDefault);
  if (result != cudaSuccess) cudaEventDestroy(pin.copied);
  check(result);
  std::lock_guard lock(mutex_);
  pins_.push_back(pin);
}

void Pins::remove(const void* host) {
  Pin pin{};
  {
    std::lock_guard lock(mutex_);
    const auto found = std::find_if(pins_.begin(), pins_.end(), [&](const Pin& one) { return one.host == host; });
    if (found == pins_.end()) return;
    pin = *found;
    pins_.erase(found);
  }
  cudaSetDevice(device_);
  release(pin);
}

// Where the device is lost nothing copies any more.
void Pins::release(const Pin& pin) {
  cudaEventSynchronize(pin.copied);
  cudaEventDestroy(pin.copied);
  cudaHostUnregister(pin.begin);
  cudaGetLastError();
}

bool Pins::copy(void* to, const void* host, size_t bytes, cudaStream_t stream) {
  const char* from = static_cast<const char*>(host);
  std::lock_guard lock(mutex_);
  for (const Pin& pin : pins_) {
    if (from < pin.begin || from + bytes > pin.begin + pin.bytes) continue;
    check(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, stream));
    check(cudaEventRecord(pin.copied, stream));
    return true;
  }
  return false;
}

}  // namespace linattn::cuda
