// The C face of the library; see core/plugin.h.
#include <array>
#include <exception>
#include <memory>

#include "core/plugin.h"
#include "cuda/cuda-device.h"

namespace linattn::cuda {
namespace {

constexpr int kMostDevices = 32;

std::array<std::unique_ptr<CudaDevice>, kMostDevices>& opened() {
  static std::array<std::unique_ptr<CudaDevice>, kMostDevices> devices;
  return devices;
}

CudaDevice& at(int device) { return *opened()[static_cast<size_t>(device)]; }

template <class Body>
LinattnStatus guard(Body body) {
  thread_local Error kept("", "");
  try {
    body();
    return {nullptr, nullptr};
  } catch (const Error& error) {
    kept = error;
  } catch (const std::bad_alloc&) {
    kept = Error("ERR_OUT_OF_MEMORY", "cuda: no host memory left");
  } catch (const std::exception& error) {
    kept = Error("ERR_CUDA", std::string("cuda: ") + error.what());
  }
  return {kept.code.c_str(), kept.what()};
}

using Callback = void (*)(void* context, LinattnStatus status);

CudaDevice::Done calling(Callback done, void* context) {
  return [done, context](std::shared_ptr<const Error> error) {
    done(context, error ? LinattnStatus{error->code.c_str(), error->what()} : LinattnStatus{nullptr, nullptr});
  };
}

const LinattnPlugin& plugin() {
  static std::string reason;
  static const LinattnPlugin made = {
      plugin_abi(),
      device_count(reason) < kMostDevices ? device_count(reason) : kMostDevices,
      reason.c_str(),
      [](int i) { return guard([&] { opened()[static_cast<size_t>(i)] = std::make_unique<CudaDevice>(i); }); },
      [](int i) { opened()[static_cast<size_t>(i)].reset(); },
      [](int i) { return at(i).description().c_str(); },
      [](int i, size_t bytes, int zeroed, int counted, void** data) {
        return guard([&] { *data = at(i).allocate(bytes, zeroed != 0, counted != 0); });
      },
      [](int i, void* data, size_t bytes, int counted) { at(i).free(data, bytes, counted != 0); },
      [](int i, MemoryUse* use) { *use = at(i).memory(); },
      [](int i, int64_t bytes) { at(i).charge(bytes); },
      [](int i, void* to, const void* host, size_t bytes) { return guard([&] { at(i).copy_in(to, host, bytes); }); },
      [](int i, const void* host, size_t bytes) { return guard([&] { at(i).pin(host, bytes); }); },
      [](int i, const void* host) { at(i).unpin(host); },
      [](int i, void* to, const void* host, size_t bytes, Callback done, void* context) {
        return guard([&] { at(i).copy_in_pinned(to, host, bytes, calling(done, context)); });
      },
      [](int i, void* host, const void* from, size_t bytes) {
        return guard([&] { at(i).copy_out(host, from, bytes); });
      },
      [](int i, Callback done, void* context) { at(i).after(calling(done, context)); },
      [](int i) { return guard([&] { at(i).time_begin(); }); },
      [](int i, double* milliseconds) { return guard([&] { at(i).time_end(milliseconds); }); },
      [](int i, int op, const void* fields) { return guard([&] { at(i).run(op, fields); }); },
      [](int i) { return guard([&] { at(i).record_begin(); }); },
      [](int i, void** graph) { return guard([&] { *graph = at(i).record_end(); }); },
      [](int i, void* graph) { return guard([&] { at(i).launch(graph); }); },
      [](int i, void* graph) { at(i).destroy(graph); },
  };
  return made;
}

}  // namespace
}  // namespace linattn::cuda

extern "C" __attribute__((visibility("default"))) const LinattnPlugin* linattn_plugin() {
  return &linattn::cuda::plugin();
}
