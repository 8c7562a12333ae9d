#include "cpu/cpu-device.h"

#include <sys/sysinfo.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

#include "core/error.h"
#include "cpu/op-functions.h"

namespace linattn::cpu {
namespace {

std::string model_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "cpu";
}

int thread_count() {
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const char* text = std::getenv("LINATTN_THREADS");
  if (!text || !*text) return cores;
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  if (*end || value < 1 || value > 1024) {
    throw Error("ERR_ARGUMENT", std::string("LINATTN_THREADS must be a number from 1 to 1024, got '") + text + "'");
  }
  return static_cast<int>(value);
}

}  // namespace

std::string CpuDevice::description() const {
  return model_name() + ", " + level_name(cpu_.level) + ", " + std::to_string(threads()) + " threads";
}

MemoryUse CpuDevice::memory() const {
  struct sysinfo info{};
  sysinfo(&info);
  return {allocator_.used(), allocator_.reserved(), static_cast<size_t>(info.totalram) * info.mem_unit};
}

// memcpy takes no null pointer, which an empty tensor has, even for 0 bytes.
void CpuDevice::copy_in(void* device, const void* host, size_t bytes) {
  if (bytes > 0) std::memcpy(device, host, bytes);
}
void CpuDevice::copy_out(void* host, const void* device, size_t bytes) {
  if (bytes > 0) std::memcpy(host, device, bytes);
}

void CpuDevice::run(int op, const void* fields) {
  struct Ended {
    Cpu& cpu;
    ~Ended() { cpu.end_command(); }
  } ended{cpu_};
  op_functions()[op](fields, cpu_);
}

std::unique_ptr<CpuDevice> make_cpu_device() {
  const char* level = std::getenv("LINATTN_CPU");
  const char* poison = std::getenv("LINATTN_POISON");
  return std::make_unique<CpuDevice>(choose_level(level ? level : ""), thread_count(), poison && *poison == '1');
}

}  // namespace linattn::cpu
