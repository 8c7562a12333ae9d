// Every tensor handle of the process. A handle is a number: slot and generation, so that a stale one is found out.
// JavaScript threads make and dispose handles; memory is bound, used and released on the device's queue thread only.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "core/error.h"
#include "core/tensor.h"

namespace linattn {

class Device;

// Memory of one or several handles (views). Touched on the queue thread only, but for `bytes` and the flags.
struct Storage {
  size_t bytes = 0;
  bool zeroed = false;         // bound as zeros
  bool transactional = false;  // a pool whose writes count only once committed: a failed command does not taint it,
                               // and its owner charges the device for what it uses of it
  void* data = nullptr;
  bool owns_data = true;
  int handles = 0;
  int live_handles = 0;  // JavaScript side: not disposed
  std::shared_ptr<const Error> taint;
};

struct TensorEntry {
  uint32_t generation = 0;
  bool disposed = true;  // JavaScript side: no new command may name it
  DType dtype = DType::kFloat32;
  int8_t rank = 0;
  int64_t shape[kMaxRank] = {};
  int64_t stride0 = 0;
  size_t offset = 0;  // bytes into the storage
  int32_t environment = 0;
  Device* device = nullptr;
  Storage* storage = nullptr;
  int holds = 0;  // 1 for the handle, 1 for every graph that names it; queue thread

  size_t bytes() const {
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= shape[i];
    return static_cast<size_t>(n) * dtype_bytes(dtype);
  }
};

struct TensorSpec {
  DType dtype = DType::kFloat32;
  int8_t rank = 0;
  int64_t shape[kMaxRank] = {};
};

class TensorTable {
 public:
  // A handle with memory of its own, bound at its first use.
  double create(const TensorSpec& spec, Device* device, int32_t environment, bool zeroed, bool transactional);
  // A handle on part of another's memory: `offset` in elements.
  double view(double base, const TensorSpec& spec, int64_t offset, int64_t stride0);

  // The live entry of a handle; throws ERR_DISPOSED for a stale or foreign one. JavaScript side.
  TensorEntry& live(double id, int32_t environment);
  // The entry behind a handle that a queued command names. Queue side: it cannot be stale.
  TensorEntry& entry(double id) { return slot(static_cast<uint64_t>(id) & kSlotMask); }
  // Queue side: gives up one hold; the last one releases the entry and, with the storage's last handle, its memory.
  void drop(double id);
  void hold(double id) { entry(id).holds++; }

  // Handles of an environment that are still live, for its end.
  std::vector<double> live_of(int32_t environment);
  size_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  static constexpr int kSlotBits = 22;
  static constexpr uint64_t kSlotMask = (uint64_t{1} << kSlotBits) - 1;
  static constexpr size_t kChunk = 1024;

  TensorEntry& slot(uint64_t index) { return chunks_[index / kChunk][index % kChunk]; }
  double add(const TensorSpec& spec, Device* device, int32_t environment, Storage* storage, size_t offset,
             int64_t stride0);

  std::mutex mutex_;
  std::array<std::unique_ptr<TensorEntry[]>, (size_t{1} << kSlotBits) / kChunk> chunks_;
  std::vector<uint32_t> free_;
  uint32_t next_ = 1;  // slot 0 is never used: id 0 means absent
  std::atomic<size_t> count_{0};
};

}  // namespace linattn
