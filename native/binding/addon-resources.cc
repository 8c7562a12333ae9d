// The rest of AddonEnvironment: graphs, files, devices and counters.
#include "binding/addon-environment.h"
#include "cpu/cpu-device.h"

namespace linattn::binding {
namespace {

template <class Map>
auto& find(Map& map, uint32_t handle, const char* message) {
  const auto found = map.find(handle);
  if (found == map.end()) throw Error("ERR_DISPOSED", message);
  return found->second;
}

}  // namespace

// pin(device, view): a handle. Keeps the view's buffer, which writeHeld() may copy from without a copy on the way.
Napi::Value AddonEnvironment::pin(const Info& info) {
  return guard(info, [&] {
    Device& device = device_at(info[0].As<Napi::Number>());
    Napi::ArrayBuffer buffer = info[1].As<Napi::TypedArray>().ArrayBuffer();
    auto pin = std::make_shared<Pin>(device, static_cast<const char*>(buffer.Data()), buffer.ByteLength());
    device.queue->task(environment_, pin_task(pin));
    const uint32_t handle = next_handle_++;
    pins_[handle] = {std::move(pin), Napi::Reference<Napi::ArrayBuffer>::New(buffer, 1)};
    return static_cast<double>(handle);
  });
}

// unpin(handle): waits for copies on their way.
Napi::Value AddonEnvironment::unpin(const Info& info) {
  return guard(info, [&] {
    const uint32_t handle = info[0].As<Napi::Number>();
    find(pins_, handle, "memory is unpinned twice").pin->end();
    pins_.erase(handle);
    return 0.0;
  });
}

bool AddonEnvironment::is_pinned(const Device& device, const void* data) const {
  for (const auto& [handle, pinned] : pins_) {
    if (pinned.pin->data() != data || &pinned.pin->device() != &device) continue;
    return pinned.buffer.Value().Data() == data;
  }
  return false;
}

// captureBegin(device)
Napi::Value AddonEnvironment::capture_begin(const Info& info) {
  return guard(info, [&] {
    if (recording_) throw Error("ERR_BUSY", "capture: a capture is already being recorded");
    recording_device_ = &device_at(info[0].As<Napi::Number>());
    recording_ = std::make_shared<Graph>(environment_);
    return 0.0;
  });
}

// captureEnd(keep): the graph's handle, or 0 when it was not kept.
Napi::Value AddonEnvironment::capture_end(const Info& info) {
  return guard(info, [&] {
    auto graph = std::move(recording_);
    recording_.reset();
    Queue& queue = *recording_device_->queue;
    queue.task(environment_, compile_task(graph));
    queue.release(environment_, late_releases_.data(), late_releases_.size());
    late_releases_.clear();
    if (!info[0].ToBoolean()) {
      queue.task(environment_, destroy_task(graph));
      return 0.0;
    }
    const uint32_t handle = next_handle_++;
    graphs_[handle] = {recording_device_, std::move(graph)};
    return static_cast<double>(handle);
  });
}

Napi::Value AddonEnvironment::replay(const Info& info) {
  return guard(info, [&] {
    auto& [device, graph] = find(graphs_, info[0].As<Napi::Number>(), "a graph is used after its dispose()");
    if (recording_) throw Error("ERR_ARGUMENT", "replay: not possible inside capture()");
    device->queue->task(environment_, replay_task(graph));
    return 0.0;
  });
}

Napi::Value AddonEnvironment::destroy_graph(const Info& info) {
  return guard(info, [&] {
    const uint32_t handle = info[0].As<Napi::Number>();
    auto& [device, graph] = find(graphs_, handle, "a graph is disposed twice");
    device->queue->task(environment_, destroy_task(graph));
    graphs_.erase(handle);
    return 0.0;
  });
}

// openFile(path): the handle; its size is written to record[0].
Napi::Value AddonEnvironment::open_file(const Info& info) {
  return guard(info, [&] {
    auto file = std::make_shared<File>(info[0].As<Napi::String>().Utf8Value());
    fields_[0] = static_cast<double>(file->size());
    const uint32_t handle = next_handle_++;
    files_[handle] = std::move(file);
    return static_cast<double>(handle);
  });
}

// loadFile(handle, offset, id): fills the tensor from the file.
Napi::Value AddonEnvironment::load_file(const Info& info) {
  return guard(info, [&] {
    const auto& file = find(files_, info[0].As<Napi::Number>(), "a file is used after its close");
    const auto offset = static_cast<uint64_t>(info[1].As<Napi::Number>().Int64Value());
    const double id = info[2].As<Napi::Number>();
    TensorEntry& entry = runtime_->table().live(id, environment_->id);
    entry.device->queue->task(environment_, file_task(id, file, offset, environment_));
    return 0.0;
  });
}

Napi::Value AddonEnvironment::close_file(const Info& info) {
  return guard(info, [&] {
    files_.erase(info[0].As<Napi::Number>().Uint32Value());
    return 0.0;
  });
}

Napi::Value AddonEnvironment::devices(const Info& info) {
  const auto count = static_cast<uint32_t>(runtime_->device_count());
  auto list = Napi::Array::New(info.Env(), count);
  for (uint32_t i = 0; i < count; i++) {
    Device* found = runtime_->device(i);
    auto device = Napi::Object::New(info.Env());
    device.Set("name", found->name());
    device.Set("description", found->description());
    if (const auto* cpu = dynamic_cast<cpu::CpuDevice*>(found)) {
      device.Set("level", cpu::level_name(cpu->level()));
      device.Set("threads", cpu->threads());
    }
    list.Set(i, device);
  }
  return list;
}

// openCuda(file): why there is no cuda device, or an empty string.
Napi::Value AddonEnvironment::open_cuda(const Info& info) {
  return Napi::String::New(info.Env(), runtime_->open_cuda(info[0].As<Napi::String>().Utf8Value()));
}

// memory(device): record[0..2] = used, reserved, total.
Napi::Value AddonEnvironment::memory(const Info& info) {
  return guard(info, [&] {
    const MemoryUse use = device_at(info[0].As<Napi::Number>()).memory();
    fields_[0] = static_cast<double>(use.used);
    fields_[1] = static_cast<double>(use.reserved);
    fields_[2] = static_cast<double>(use.total);
    return 0.0;
  });
}

// charge(device, bytes): what a pool uses of its memory, more or (negative) less. V8 does not hear of it: a collection
// gives nothing back to a pool.
Napi::Value AddonEnvironment::charge(const Info& info) {
  return guard(info, [&] {
    const int64_t bytes = info[1].As<Napi::Number>().Int64Value();
    device_at(info[0].As<Napi::Number>()).charge(bytes);
    charged_[static_cast<int>(info[0].As<Napi::Number>())] += bytes;
    return 0.0;
  });
}

// Process-wide: record[0..2] = live tensors, waiting commands, op commands run on the device.
Napi::Value AddonEnvironment::counters(const Info& info) {
  return guard(info, [&] {
    Device& device = device_at(info[0].As<Napi::Number>());
    fields_[0] = static_cast<double>(runtime_->table().count());
    fields_[1] = static_cast<double>(device.queue->waiting());
    fields_[2] = static_cast<double>(device.commands.load(std::memory_order_relaxed));
    return 0.0;
  });
}

Napi::Value AddonEnvironment::set_threads(const Info& info) {
  return guard(info, [&] {
    const int threads = info[0].As<Napi::Number>();
    if (threads < 1 || threads > 1024) throw Error("ERR_ARGUMENT", "threads must be from 1 to 1024");
    runtime_->device(0)->queue->task(environment_, threads_task(threads));
    return 0.0;
  });
}

}  // namespace linattn::binding
