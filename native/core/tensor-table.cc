#include "core/tensor-table.h"

#include <string>

#include "core/device.h"

namespace linattn {

double TensorTable::add(const TensorSpec& spec, Device* device, int32_t environment, Storage* storage, size_t offset,
                        int64_t stride0) {
  std::lock_guard lock(mutex_);
  uint32_t index;
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else {
    if (next_ >> kSlotBits) throw Error("ERR_OUT_OF_MEMORY", "tensor: more than 4194303 tensors are alive");
    index = next_++;
    auto& chunk = chunks_[index / kChunk];
    if (!chunk) chunk = std::make_unique<TensorEntry[]>(kChunk);
  }
  TensorEntry& entry = slot(index);
  entry.generation = (entry.generation + 1) & 0x3fffffff;
  entry.disposed = false;
  entry.dtype = spec.dtype;
  entry.rank = spec.rank;
  for (int i = 0; i < kMaxRank; i++) entry.shape[i] = spec.shape[i];
  entry.stride0 = stride0;
  entry.offset = offset;
  entry.environment = environment;
  entry.device = device;
  entry.storage = storage;
  entry.holds = 1;
  count_.fetch_add(1, std::memory_order_relaxed);
  return static_cast<double>((static_cast<uint64_t>(entry.generation) << kSlotBits) | index);
}

double TensorTable::create(const TensorSpec& spec, Device* device, int32_t environment, bool zeroed,
                           bool transactional) {
  int64_t inner = 1;
  for (int i = 1; i < spec.rank; i++) inner *= spec.shape[i];
  auto storage = std::make_unique<Storage>();
  storage->bytes = static_cast<size_t>(spec.rank > 0 ? spec.shape[0] * inner : 1) * dtype_bytes(spec.dtype);
  storage->zeroed = zeroed;
  storage->transactional = transactional;
  storage->handles = storage->live_handles = 1;
  const double id = add(spec, device, environment, storage.get(), 0, inner);
  storage.release();
  return id;
}

double TensorTable::view(double base, const TensorSpec& spec, int64_t offset, int64_t stride0) {
  TensorEntry& from = entry(base);
  const size_t width = dtype_bytes(spec.dtype);
  int64_t last = offset;
  int64_t inner = 1;
  bool empty = false;
  for (int i = 1; i < spec.rank; i++) inner *= spec.shape[i];
  for (int i = 0; i < spec.rank; i++) empty = empty || spec.shape[i] == 0;
  if (!empty) last += (spec.rank > 0 ? (spec.shape[0] - 1) * stride0 : 0) + inner;
  if (offset < 0 || stride0 < 0 || from.offset % width != 0 ||
      from.offset + static_cast<size_t>(last) * width > from.storage->bytes) {
    throw Error("ERR_SHAPE", "view: reaches beyond the tensor's memory");
  }
  const double id = add(spec, from.device, from.environment, from.storage,
                        from.offset + static_cast<size_t>(offset) * width, stride0);
  std::lock_guard lock(mutex_);
  from.storage->handles++;
  from.storage->live_handles++;
  return id;
}

TensorEntry& TensorTable::live(double id, int32_t environment) {
  const auto bits = static_cast<uint64_t>(id);
  const uint64_t index = bits & kSlotMask;
  if (id >= 1 && chunks_[index / kChunk]) {
    TensorEntry& found = slot(index);
    if (found.generation == bits >> kSlotBits && !found.disposed && found.environment == environment) return found;
  }
  throw Error("ERR_DISPOSED", "a tensor is used after its dispose()");
}

void TensorTable::drop(double id) {
  TensorEntry& found = entry(id);
  if (--found.holds > 0) return;
  Storage* storage = found.storage;
  Device* device = found.device;
  bool last;
  {
    std::lock_guard lock(mutex_);
    last = --storage->handles == 0;
    found.storage = nullptr;
    found.disposed = true;
    free_.push_back(static_cast<uint32_t>(static_cast<uint64_t>(id) & kSlotMask));
  }
  count_.fetch_sub(1, std::memory_order_relaxed);
  if (!last) return;
  if (storage->data && storage->owns_data) device->free(storage->data, storage->bytes, !storage->transactional);
  delete storage;
}

std::vector<double> TensorTable::live_of(int32_t environment) {
  std::vector<double> ids;
  std::lock_guard lock(mutex_);
  for (uint32_t index = 1; index < next_; index++) {
    TensorEntry& found = slot(index);
    // In this order: `disposed` of another environment is its thread's to write.
    if (found.environment != environment || found.disposed) continue;
    found.disposed = true;
    ids.push_back(static_cast<double>((static_cast<uint64_t>(found.generation) << kSlotBits) | index));
  }
  return ids;
}

}  // namespace linattn
