#include "core/plugin-device.h"

#include <dlfcn.h>
#include <sys/stat.h>

#include "core/error.h"
#include "core/plugin.h"

namespace linattn {
namespace {

void check(LinattnStatus status) {
  if (status.code) throw Error(status.code, status.message);
}

// What the library calls with a Done of new as its context, which goes then.
void call_done(void* context, LinattnStatus status) {
  const std::unique_ptr<Device::Done> held(static_cast<Device::Done*>(context));
  (*held)(status.code ? std::make_shared<const Error>(status.code, status.message) : nullptr);
}

class PluginDevice final : public Device {
 public:
  PluginDevice(const LinattnPlugin& plugin, int number, std::string name)
      : plugin_(plugin), number_(number), name_(std::move(name)) {}
  ~PluginDevice() override { plugin_.close(number_); }

  std::string name() const override { return name_; }
  std::string description() const override { return plugin_.description(number_); }
  void* allocate(size_t bytes, bool zeroed, bool counted) override {
    void* data = nullptr;
    check(plugin_.allocate(number_, bytes, zeroed, counted, &data));
    return data;
  }
  void free(void* data, size_t bytes, bool counted) override { plugin_.free(number_, data, bytes, counted); }
  MemoryUse memory() const override {
    MemoryUse use;
    plugin_.memory(number_, &use);
    return use;
  }
  void charge(int64_t bytes) override { plugin_.charge(number_, bytes); }
  bool host_memory() const override { return false; }
  void copy_in(void* to, const void* host, size_t bytes) override { check(plugin_.copy_in(number_, to, host, bytes)); }
  void pin(const void* host, size_t bytes) override { check(plugin_.pin(number_, host, bytes)); }
  void unpin(const void* host) override { plugin_.unpin(number_, host); }
  void copy_in_pinned(void* to, const void* host, size_t bytes, Done done) override {
    auto context = std::make_unique<Done>(std::move(done));
    check(plugin_.copy_in_pinned(number_, to, host, bytes, call_done, context.get()));
    context.release();
  }
  void copy_out(void* host, const void* from, size_t bytes) override {
    check(plugin_.copy_out(number_, host, from, bytes));
  }
  void after(Done done) override { plugin_.after(number_, call_done, new Done(std::move(done))); }
  void time_begin() override { check(plugin_.time_begin(number_)); }
  void time_end(double* milliseconds) override { check(plugin_.time_end(number_, milliseconds)); }
  void run(int op, const void* fields) override { check(plugin_.run(number_, op, fields)); }
  bool record_begin() override {
    check(plugin_.record_begin(number_));
    return true;
  }
  void* record_end() override {
    void* graph = nullptr;
    check(plugin_.record_end(number_, &graph));
    return graph;
  }
  void launch(void* graph) override { check(plugin_.launch(number_, graph)); }
  void destroy(void* graph) override { plugin_.destroy(number_, graph); }

 private:
  const LinattnPlugin& plugin_;
  int number_;
  std::string name_;
};

// The library stays open: its threads and the runtime in it end with the process.
const LinattnPlugin* open_library(const std::string& file, std::string& reason) {
  struct stat info{};
  if (stat(file.c_str(), &info) != 0) {
    reason = "this build has no CUDA backend (" + file + " is not there)";
    return nullptr;
  }
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* message = dlerror();
    reason = message ? message : file + " does not open";
    return nullptr;
  }
  const auto entry = reinterpret_cast<PluginEntry>(dlsym(library, kPluginEntry));
  const LinattnPlugin* plugin = entry ? entry() : nullptr;
  if (!plugin || plugin->abi != plugin_abi()) {
    reason = file + " is of another build than the addon; rebuild both";
    return nullptr;
  }
  return plugin;
}

}  // namespace

PluginDevices open_plugin(const std::string& file, const std::string& name) {
  PluginDevices found;
  const LinattnPlugin* plugin = open_library(file, found.unavailable);
  if (!plugin) return found;
  if (plugin->devices == 0) found.unavailable = plugin->reason;
  for (int i = 0; i < plugin->devices; i++) {
    const LinattnStatus status = plugin->open(i);
    if (status.code) {
      found.unavailable = status.message;
      break;
    }
    found.devices.push_back(std::make_unique<PluginDevice>(*plugin, i, name + ":" + std::to_string(i)));
  }
  return found;
}

}  // namespace linattn
