#include "core/graph.h"

#include <algorithm>
#include <map>
#include <unordered_map>

namespace linattn {
namespace {

constexpr size_t kHeader = 3;
constexpr size_t kAlign = 256;

// First-fit places in a growing arena; places given back are merged.
class Plan {
 public:
  size_t take(size_t bytes) {
    bytes = (std::max<size_t>(bytes, 1) + kAlign - 1) / kAlign * kAlign;
    for (auto hole = holes_.begin(); hole != holes_.end(); ++hole) {
      if (hole->second < bytes) continue;
      const size_t at = hole->first;
      const size_t rest = hole->second - bytes;
      holes_.erase(hole);
      if (rest) holes_[at + bytes] = rest;
      sizes_[at] = bytes;
      return at;
    }
    const size_t at = end_;
    end_ += bytes;
    sizes_[at] = bytes;
    return at;
  }

  void give(size_t at) {
    size_t bytes = sizes_[at];
    auto next = holes_.lower_bound(at);
    if (next != holes_.end() && at + bytes == next->first) {
      bytes += next->second;
      next = holes_.erase(next);
    }
    if (next != holes_.begin()) {
      auto before = std::prev(next);
      if (before->first + before->second == at) {
        before->second += bytes;
        return;
      }
    }
    holes_[at] = bytes;
  }

  size_t end() const { return end_; }

 private:
  std::map<size_t, size_t> holes_;
  std::unordered_map<size_t, size_t> sizes_;
  size_t end_ = 0;
};

}  // namespace

void Graph::op(int index, const double* fields, size_t count) {
  const double header[kHeader] = {static_cast<double>(kHeader + count), static_cast<double>(index),
                                  static_cast<double>(owner_->id)};
  records_.insert(records_.end(), header, header + kHeader);
  records_.insert(records_.end(), fields, fields + count);
}

bool Graph::release(double id) {
  if (std::find(made_.begin(), made_.end(), id) == made_.end()) return false;
  releases_.emplace_back(records_.size(), id);
  return true;
}

void Graph::compile(Device& device, TensorTable& table) {
  const std::unordered_set<double> made(made_.begin(), made_.end());
  std::unordered_map<Storage*, size_t> places;
  std::unordered_map<Storage*, int> handles;
  for (const double id : made_) handles[table.entry(id).storage]++;
  std::unordered_set<double> held;
  Plan plan;
  auto release = releases_.begin();
  const auto free_until = [&](size_t at) {
    for (; release != releases_.end() && release->first <= at; ++release) {
      Storage* storage = table.entry(release->second).storage;
      const auto place = places.find(storage);
      if (--handles[storage] == 0 && place != places.end()) plan.give(place->second);
    }
  };
  for (size_t at = 0; at < records_.size(); at += static_cast<size_t>(records_[at])) {
    free_until(at);
    const auto& fields = op_table()[static_cast<size_t>(records_[at + 1])].fields;
    for (size_t i = 0; i < fields.size(); i++) {
      const double id = records_[at + kHeader + i];
      if (fields[i].kind == FieldKind::kNumber || id == 0) continue;
      if (!made.count(id) && held.insert(id).second) table.hold(id);
      Storage* storage = table.entry(id).storage;
      if (!storages_.count(storage)) {
        outside_.insert(storage);
      } else if (!storage->zeroed && !places.count(storage)) {
        places[storage] = plan.take(storage->bytes);
      }
    }
  }
  held_.assign(held.begin(), held.end());
  // A handle disposed while recording left its hold to the graph; one that is still out gets a second hold.
  std::unordered_set<double> released;
  for (const auto& [at, id] : releases_) released.insert(id);
  for (const double id : made_) {
    if (!released.count(id)) table.hold(id);
  }
  arena_bytes_ = plan.end();
  if (arena_bytes_) arena_ = device.allocate(arena_bytes_, false, true);
  for (const auto& [storage, at] : places) {
    storage->data = static_cast<char*>(arena_) + at;
    storage->owns_data = false;
  }
}

// False when the device keeps no graph of these commands.
bool Graph::record(Device& device) {
  try {
    if (!device.record_begin()) {
      recordable_ = false;
      return false;
    }
    const uint64_t before = device.commands.load(std::memory_order_relaxed);
    const bool all = device.queue->replay(records_, *owner_);
    commands_ = device.commands.exchange(before, std::memory_order_relaxed) - before;
    kept_ = device.record_end();
    if (all && kept_) return true;
  } catch (const Error&) {
    // Run one by one, the commands show the failure by name.
  }
  recordable_ = false;
  if (kept_) device.destroy(kept_);
  kept_ = nullptr;
  return false;
}

// False when the commands must run one by one: to taint what depends on a failed command.
bool Graph::launch(Device& device) {
  for (const Storage* storage : outside_) {
    if (storage->taint) return false;
  }
  std::shared_ptr<const Error> failure;
  try {
    device.launch(kept_);
    device.commands.fetch_add(commands_, std::memory_order_relaxed);
  } catch (const Error& error) {
    failure = std::make_shared<const Error>(error.code, error.what());
  }
  for (Storage* storage : storages_) storage->taint = failure;
  return true;
}

void Graph::replay(Device& device) {
  if (kept_ || (warm_ && recordable_ && record(device))) {
    bool launched = false;
    if (!device.queue->once(*owner_, [&] { launched = launch(device); }) || launched) return;
  }
  warm_ = device.queue->replay(records_, *owner_);
}

void Graph::destroy(Device& device, TensorTable& table) {
  static const auto kGone =
      std::make_shared<const Error>("ERR_DISPOSED", "a tensor is used after its graph's dispose()");
  for (Storage* storage : storages_) {
    if (storage->owns_data) continue;
    storage->data = nullptr;
    storage->taint = kGone;
  }
  if (kept_) device.destroy(kept_);
  kept_ = nullptr;
  for (const double id : held_) table.drop(id);
  for (const double id : made_) table.drop(id);
  if (arena_) device.free(arena_, arena_bytes_, true);
  arena_ = nullptr;
  held_.clear();
  made_.clear();
  storages_.clear();
  outside_.clear();
}

}  // namespace linattn
