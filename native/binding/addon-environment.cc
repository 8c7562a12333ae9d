#include "binding/addon-environment.h"

#include <algorithm>
#include <cstdlib>

namespace linattn::binding {
namespace {

constexpr size_t kRecord = 1024;                    // doubles
constexpr int64_t kAccountStep = int64_t{4} << 20;  // bytes before V8 is told
constexpr const char* kFieldKinds[] = {"in", "optional", "inout", "out", "number"};

char* memory_of(const Napi::TypedArray& view) {
  return static_cast<char*>(view.ArrayBuffer().Data()) + view.ByteOffset();
}

}  // namespace

AddonEnvironment::AddonEnvironment(Napi::Env env, Napi::Object exports)
    : runtime_(Runtime::shared()), environment_(runtime_->enter()) {
  auto record = Napi::Float64Array::New(env, kRecord);
  record_ = Napi::Reference<Napi::Float64Array>::New(record, 1);
  fields_ = record.Data();
  exports.Set("record", record);
  add_ops(env, exports);
  using Self = AddonEnvironment;
  add_function(env, exports, "run", &Self::run);
  add_function(env, exports, "create", &Self::create);
  add_function(env, exports, "view", &Self::view);
  add_function(env, exports, "release", &Self::release);
  add_function(env, exports, "write", &Self::write);
  add_function(env, exports, "writeHeld", &Self::write_held);
  add_function(env, exports, "pin", &Self::pin);
  add_function(env, exports, "unpin", &Self::unpin);
  add_function(env, exports, "makeChecksum", &Self::make_checksum);
  add_function(env, exports, "checkChecksum", &Self::check_checksum);
  add_function(env, exports, "copy", &Self::copy);
  add_function(env, exports, "read", &Self::read);
  add_function(env, exports, "wait", &Self::wait);
  add_function(env, exports, "fence", &Self::fence);
  add_function(env, exports, "timeBegin", &Self::time_begin);
  add_function(env, exports, "timeEnd", &Self::time_end);
  add_function(env, exports, "onComplete", &Self::on_complete);
  add_function(env, exports, "captureBegin", &Self::capture_begin);
  add_function(env, exports, "captureEnd", &Self::capture_end);
  add_function(env, exports, "replay", &Self::replay);
  add_function(env, exports, "destroyGraph", &Self::destroy_graph);
  add_function(env, exports, "openFile", &Self::open_file);
  add_function(env, exports, "loadFile", &Self::load_file);
  add_function(env, exports, "closeFile", &Self::close_file);
  add_function(env, exports, "devices", &Self::devices);
  add_function(env, exports, "openCuda", &Self::open_cuda);
  add_function(env, exports, "memory", &Self::memory);
  add_function(env, exports, "charge", &Self::charge);
  add_function(env, exports, "counters", &Self::counters);
  add_function(env, exports, "setThreads", &Self::set_threads);
  add_function(env, exports, "lastError", &Self::last_error);
}

AddonEnvironment::~AddonEnvironment() { close(); }

void AddonEnvironment::close() {
  if (completions_) completions_->close();
  checksums_.reset();
  if (!runtime_) return;
  for (auto& [handle, graph] : graphs_) graph.first->queue->task(environment_, destroy_task(graph.second));
  graphs_.clear();
  for (const auto& [device, bytes] : charged_) runtime_->device(static_cast<size_t>(device))->charge(-bytes);
  runtime_->leave(environment_);
  for (auto& [handle, pinned] : pins_) pinned.pin->end();
  pins_.clear();
  if (completions_) completions_->forget();
  runtime_.reset();
}

void AddonEnvironment::add_ops(Napi::Env env, Napi::Object exports) {
  const auto& table = op_table();
  auto ops = Napi::Array::New(env, table.size());
  for (uint32_t i = 0; i < table.size(); i++) {
    auto fields = Napi::Array::New(env, table[i].fields.size());
    for (uint32_t j = 0; j < table[i].fields.size(); j++) {
      auto field = Napi::Object::New(env);
      field.Set("name", table[i].fields[j].name);
      field.Set("kind", kFieldKinds[static_cast<int>(table[i].fields[j].kind)]);
      fields.Set(j, field);
    }
    auto op = Napi::Object::New(env);
    op.Set("name", table[i].name);
    op.Set("fields", fields);
    ops.Set(i, op);
  }
  exports.Set("ops", ops);
}

void AddonEnvironment::add_function(Napi::Env env, Napi::Object exports, const char* name,
                                    Napi::Value (AddonEnvironment::*method)(const Info&)) {
  exports.Set(name, Napi::Function::New(env, [this, method](const Info& info) { return (this->*method)(info); }, name));
}

Napi::Value AddonEnvironment::last_error(const Info& info) {
  auto error = Napi::Object::New(info.Env());
  error.Set("code", error_code_);
  error.Set("message", error_message_);
  return error;
}

Device& AddonEnvironment::device_at(double index) {
  Device* device = index >= 0 ? runtime_->device(static_cast<size_t>(index)) : nullptr;
  if (!device) throw Error("ERR_DEVICE", "no such device");
  return *device;
}

TensorSpec AddonEnvironment::spec_at(const double* at) const {
  TensorSpec spec;
  if (!(at[0] >= 0 && at[0] < kDTypeCount) || !(at[1] >= 0 && at[1] <= kMaxRank)) {
    throw Error("ERR_SHAPE", "a tensor has at most 5 dimensions");
  }
  spec.dtype = static_cast<DType>(static_cast<int>(at[0]));
  spec.rank = static_cast<int8_t>(at[1]);
  double elements = 1;
  for (int i = 0; i < spec.rank; i++) {
    const double size = at[2 + i];
    if (!(size >= 0 && size < 9007199254740992.0)) throw Error("ERR_SHAPE", "a tensor's sizes are whole numbers >= 0");
    elements *= std::max(size, 1.0);
    spec.shape[i] = static_cast<int64_t>(size);
  }
  if (elements > 1e15) throw Error("ERR_OUT_OF_MEMORY", "a tensor of more than 10^15 elements was asked for");
  return spec;
}

double AddonEnvironment::make(const TensorSpec& spec, Device& device, bool zeroed, bool transactional) {
  const double id = runtime_->table().create(spec, &device, environment_->id, zeroed, transactional);
  if (recording_) recording_->made(id, runtime_->table().entry(id).storage);
  return id;
}

void AddonEnvironment::account(Napi::Env env) {
  if (unaccounted_ < kAccountStep && unaccounted_ > -kAccountStep) return;
  Napi::MemoryManagement::AdjustExternalMemory(env, unaccounted_);
  unaccounted_ = 0;
}

// record: op, device, one double a field, then the outputs to make: count, and for each: field, dtype, rank, dims.
Napi::Value AddonEnvironment::run(const Info& info) {
  return guard(info, [&] {
    const auto& table = op_table();
    const double index = fields_[0];
    if (!(index >= 0) || index >= static_cast<double>(table.size())) throw Error("ERR_ADDON", "no such op");
    const OpInfo& op = table[static_cast<size_t>(index)];
    Device& device = device_at(fields_[1]);
    double* record = fields_ + 2;
    const size_t count = op.fields.size();
    for (size_t i = 0; i < count; i++) {
      const FieldKind kind = op.fields[i].kind;
      if (kind == FieldKind::kNumber || kind == FieldKind::kOut || record[i] == 0) continue;
      if (runtime_->table().live(record[i], environment_->id).device != &device) {
        throw Error("ERR_DEVICE", std::string(op.name) + ": " + op.fields[i].name + " is on another device");
      }
    }
    if (recording_ && &device != recording_device_) {
      throw Error("ERR_DEVICE", std::string(op.name) + ": a capture records one device only");
    }
    const double* output = record + count;
    const int outputs = static_cast<int>(*output++);
    int64_t bytes = 0;
    for (int i = 0; i < outputs; i++) {
      const TensorSpec spec = spec_at(output + 1);
      record[static_cast<size_t>(output[0])] = make(spec, device, false, false);
      bytes += static_cast<int64_t>(runtime_->table().entry(record[static_cast<size_t>(output[0])]).storage->bytes);
      output += 3 + spec.rank;
    }
    if (recording_) {
      recording_->op(static_cast<int>(index), record, count);
    } else {
      device.queue->op(environment_, static_cast<int>(index), record, count);
    }
    unaccounted_ += bytes;
    return 0.0;
  });
}

// record: device, zeroed, transactional, dtype, rank, dims. Returns the handle.
Napi::Value AddonEnvironment::create(const Info& info) {
  return guard(info, [&] {
    const TensorSpec spec = spec_at(fields_ + 3);
    const double id = make(spec, device_at(fields_[0]), fields_[1] != 0, fields_[2] != 0);
    const Storage& storage = *runtime_->table().entry(id).storage;
    if (!storage.transactional) unaccounted_ += static_cast<int64_t>(storage.bytes);
    return id;
  });
}

// record: base, offset in elements, stride of the first dimension, dtype, rank, dims. Returns the handle.
Napi::Value AddonEnvironment::view(const Info& info) {
  return guard(info, [&] {
    runtime_->table().live(fields_[0], environment_->id);
    const double id = runtime_->table().view(fields_[0], spec_at(fields_ + 3), static_cast<int64_t>(fields_[1]),
                                             static_cast<int64_t>(fields_[2]));
    if (recording_) recording_->viewed(id);
    return id;
  });
}

// release(count): the handles in record[0..count).
Napi::Value AddonEnvironment::release(const Info& info) {
  return guard(info, [&] {
    const auto count = static_cast<size_t>(info[0].As<Napi::Number>().Int64Value());
    int64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
      TensorEntry& entry = runtime_->table().live(fields_[i], environment_->id);
      entry.disposed = true;
      const bool counted = --entry.storage->live_handles == 0 && !entry.storage->transactional;
      if (counted) bytes += static_cast<int64_t>(entry.storage->bytes);
    }
    unaccounted_ -= bytes;
    if (recording_) {
      for (size_t i = 0; i < count; i++) {
        if (!recording_->release(fields_[i])) late_releases_.push_back(fields_[i]);
      }
      return 0.0;
    }
    // Mostly all are on one device, and its queue takes them as one command.
    for (size_t from = 0, to = 0; from < count; from = to) {
      Queue* queue = runtime_->table().entry(fields_[from]).device->queue;
      while (to < count && runtime_->table().entry(fields_[to]).device->queue == queue) to++;
      queue->release(environment_, fields_ + from, to - from);
    }
    return 0.0;
  });
}

// Of (id, byteOffset, view, ...): what to write where.
AddonEnvironment::Writing AddonEnvironment::writing_of(const Info& info) {
  const double id = info[0].As<Napi::Number>();
  TensorEntry& entry = runtime_->table().live(id, environment_->id);
  if (recording_) throw Error("ERR_ARGUMENT", "write: a capture records no host memory");
  const auto view = info[2].As<Napi::TypedArray>();
  const size_t offset = static_cast<size_t>(info[1].As<Napi::Number>().Int64Value());
  if (offset > entry.bytes() || view.ByteLength() > entry.bytes() - offset)
    throw Error("ERR_SHAPE", "write: reaches beyond the tensor");
  return {id, entry.device, offset, view, memory_of(view)};
}

// write(id, byteOffset, view)
Napi::Value AddonEnvironment::write(const Info& info) {
  return guard(info, [&] {
    const Writing to = writing_of(info);
    to.device->queue->task(environment_, write_task(to.id, to.offset, to.data, to.view.ByteLength()));
    return 0.0;
  });
}

// writeHeld(id, byteOffset, view, request): the same without a copy of `view`, which stays as it is until `request`
// completes.
Napi::Value AddonEnvironment::write_held(const Info& info) {
  return guard(info, [&] {
    const Writing to = writing_of(info);
    const double request = info[3].As<Napi::Number>();
    completions_->expect(info.Env(), request, to.view);
    const bool pinned = is_pinned(*to.device, to.view.ArrayBuffer().Data());
    to.device->queue->task(environment_, held_write_task(to.id, to.offset, to.data, to.view.ByteLength(), pinned,
                                                         request, environment_, completions_));
    return 0.0;
  });
}

// makeChecksum(block, seed, request)
Napi::Value AddonEnvironment::make_checksum(const Info& info) { return checksum(info, Checksums::What::kMake); }

// checkChecksum(block, seed, request)
Napi::Value AddonEnvironment::check_checksum(const Info& info) { return checksum(info, Checksums::What::kCheck); }

Napi::Value AddonEnvironment::checksum(const Info& info, Checksums::What what) {
  return guard(info, [&] {
    const auto block = info[0].As<Napi::TypedArray>();
    if (block.ByteLength() < Checksums::kBytes) throw Error("ERR_ARGUMENT", "a block has at least 8 bytes");
    const auto seed = static_cast<uint64_t>(info[1].As<Napi::Number>().Int64Value());
    const double request = info[2].As<Napi::Number>();
    if (!checksums_) checksums_ = std::make_unique<Checksums>();
    completions_->expect(info.Env(), request, block);
    checksums_->enqueue(what, memory_of(block), block.ByteLength(), seed, request, completions_);
    return 0.0;
  });
}

// copy(from, to): the bytes of one tensor to another of as many, on any device.
Napi::Value AddonEnvironment::copy(const Info& info) {
  return guard(info, [&] {
    const double from = info[0].As<Napi::Number>();
    const double to = info[1].As<Napi::Number>();
    TensorEntry& source = runtime_->table().live(from, environment_->id);
    TensorEntry& target = runtime_->table().live(to, environment_->id);
    if (recording_) throw Error("ERR_ARGUMENT", "to: a capture records no copy by way of the host");
    if (source.bytes() != target.bytes()) throw Error("ERR_SHAPE", "to: the tensors are not of one size");
    auto [send, receive] = copy_tasks(from, to);
    source.device->queue->task(environment_, std::move(send));
    target.device->queue->task(environment_, std::move(receive));
    return 0.0;
  });
}

// read(id, request, target)
Napi::Value AddonEnvironment::read(const Info& info) {
  return guard(info, [&] {
    const double id = info[0].As<Napi::Number>();
    const double request = info[1].As<Napi::Number>();
    TensorEntry& entry = runtime_->table().live(id, environment_->id);
    if (recording_) throw Error("ERR_ARGUMENT", "read: not possible inside capture()");
    account(info.Env());
    completions_->expect(info.Env(), request, info[2]);
    entry.device->queue->task(environment_, read_task(id, request, true, completions_));
    return 0.0;
  });
}

// wait(id, request): completes when the commands so far are done, with the tensor's error if it has one.
Napi::Value AddonEnvironment::wait(const Info& info) {
  return guard(info, [&] {
    const double id = info[0].As<Napi::Number>();
    const double request = info[1].As<Napi::Number>();
    TensorEntry& entry = runtime_->table().live(id, environment_->id);
    account(info.Env());
    completions_->expect(info.Env(), request, Napi::Value());
    entry.device->queue->task(environment_, read_task(id, request, false, completions_));
    return 0.0;
  });
}

// fence(device, request)
Napi::Value AddonEnvironment::fence(const Info& info) {
  return guard(info, [&] {
    Device& device = device_at(info[0].As<Napi::Number>());
    const double request = info[1].As<Napi::Number>();
    account(info.Env());
    completions_->expect(info.Env(), request, Napi::Value());
    device.queue->task(environment_, fence_task(request, completions_));
    return 0.0;
  });
}

// timeBegin(device)
Napi::Value AddonEnvironment::time_begin(const Info& info) {
  return guard(info, [&] {
    device_at(info[0].As<Napi::Number>()).queue->task(environment_, time_begin_task());
    return 0.0;
  });
}

// timeEnd(device, request, target)
Napi::Value AddonEnvironment::time_end(const Info& info) {
  return guard(info, [&] {
    Device& device = device_at(info[0].As<Napi::Number>());
    const double request = info[1].As<Napi::Number>();
    completions_->expect(info.Env(), request, info[2]);
    device.queue->task(environment_, time_end_task(request, completions_));
    return 0.0;
  });
}

Napi::Value AddonEnvironment::on_complete(const Info& info) {
  return guard(info, [&] {
    completions_ = std::make_shared<Completions>(info.Env(), info[0].As<Napi::Function>());
    return 0.0;
  });
}

}  // namespace linattn::binding
