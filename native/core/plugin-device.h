// Devices of a backend that lies in a shared library of its own.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/device.h"

namespace linattn {

struct PluginDevices {
  std::vector<std::unique_ptr<Device>> devices;  // named `name`:0, `name`:1, ...
  std::string unavailable;                       // why there are none
};

// Opens `file`, an absolute path. Never throws: whatever is wrong becomes the reason.
PluginDevices open_plugin(const std::string& file, const std::string& name);

}  // namespace linattn
