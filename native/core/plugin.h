// The C boundary between the addon and a backend in a shared library of its own (linattn-cuda.so). Nothing throws
// across it, and nothing of the C++ library's state is shared: each side has its own copy of it.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/device.h"

extern "C" {

// Of a call: code is null when all went well, else both are valid until the thread's next call.
struct LinattnStatus {
  const char* code;
  const char* message;
};

struct LinattnPlugin {
  uint64_t abi;  // linattn::plugin_abi() of the library's build
  int devices;
  const char* reason;  // why there is no device; valid for ever

  // `device` is 0 to devices - 1. All but memory(), unpin() and callbacks on the device's queue thread.
  LinattnStatus (*open)(int device);
  void (*close)(int device);  // after its queue's end
  const char* (*description)(int device);
  LinattnStatus (*allocate)(int device, size_t bytes, int zeroed, int counted, void** data);
  void (*free)(int device, void* data, size_t bytes, int counted);
  void (*memory)(int device, linattn::MemoryUse* use);
  void (*charge)(int device, int64_t bytes);
  LinattnStatus (*copy_in)(int device, void* to, const void* host, size_t bytes);
  LinattnStatus (*pin)(int device, const void* host, size_t bytes);
  void (*unpin)(int device, const void* host);
  // Calls done(context, status) once, from any thread, when `host` is free again, unless it returns an error.
  LinattnStatus (*copy_in_pinned)(int device, void* to, const void* host, size_t bytes,
                                  void (*done)(void* context, LinattnStatus status), void* context);
  LinattnStatus (*copy_out)(int device, void* host, const void* from, size_t bytes);
  // Calls done(context, status) once, from any thread, when everything before has happened.
  void (*after)(int device, void (*done)(void* context, LinattnStatus status), void* context);
  LinattnStatus (*time_begin)(int device);
  LinattnStatus (*time_end)(int device, double* milliseconds);  // filled once a later after() is done
  LinattnStatus (*run)(int device, int op, const void* fields);
  // What run() enqueues between the two becomes a graph instead; *graph is null when it could not.
  LinattnStatus (*record_begin)(int device);
  LinattnStatus (*record_end)(int device, void** graph);
  LinattnStatus (*launch)(int device, void* graph);
  void (*destroy)(int device, void* graph);
};

}  // extern "C"

namespace linattn {

constexpr const char* kPluginEntry = "linattn_plugin";
using PluginEntry = const LinattnPlugin* (*)();

// Differs between builds whose op structs do: both sides must come from one tree.
uint64_t plugin_abi();

}  // namespace linattn
