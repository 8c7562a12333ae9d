#include "cpu/cpu.h"

#include <algorithm>
#include <cstdlib>

#include "core/error.h"

namespace linattn::cpu {
namespace {

constexpr size_t kAlign = 64;
constexpr size_t kBlockBytes = size_t{1} << 20;

}  // namespace

void Cpu::Free::operator()(void* p) const { std::free(p); }

void* Cpu::scratch(size_t bytes) {
  bytes = (std::max<size_t>(bytes, 1) + kAlign - 1) / kAlign * kAlign;
  for (auto& block : blocks_) {
    if (block.bytes - block.used < bytes) continue;
    void* p = static_cast<char*>(block.data.get()) + block.used;
    block.used += bytes;
    return p;
  }
  const size_t size = (std::max(bytes, least_) + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  least_ = 0;
  void* data = std::aligned_alloc(kAlign, size);
  if (!data) throw Error("ERR_OUT_OF_MEMORY", "cpu: no memory for " + std::to_string(size) + " bytes of scratch");
  blocks_.push_back({std::unique_ptr<void, Free>(data), size, bytes});
  return data;
}

void Cpu::end_command() {
  // Several blocks become one of their size at the next command, so that growing commands leave no small ones behind.
  if (blocks_.size() > 1) {
    least_ = 0;
    for (const auto& block : blocks_) least_ += block.bytes;
    blocks_.clear();
  }
  for (auto& block : blocks_) block.used = 0;
}

}  // namespace linattn::cpu
