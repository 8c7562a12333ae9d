// The CUDA runtime, as far as native/cuda calls it: one device whose memory is the host's, and everything is done when
// it is called, or when the graph that it is recorded into is launched.
#pragma once
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidAddressSpace,
  cudaErrorInvalidPc,
  cudaErrorHardwareStackError,
  cudaErrorAssert,
  cudaErrorECCUncorrectable,
  cudaErrorNvlinkUncorrectable,
  cudaErrorDevicesUnavailable,
  cudaErrorDeviceUninitialized,
  cudaErrorIllegalAddress,
  cudaErrorLaunchFailure,
  cudaErrorLaunchTimeout,
  cudaErrorIllegalInstruction,
  cudaErrorMisalignedAddress,
  cudaErrorNotSupported,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum { cudaHostAllocDefault = 0, cudaHostAllocMapped = 2, cudaHostRegisterDefault = 0 };
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal };

namespace linattn::cuda::emulator {

// Kernels launched so far; after as many as LINATTN_EMULATOR_LOSE says, the device is lost.
inline std::atomic<long> launches{0};
inline cudaError_t state() {
  static const char* text = std::getenv("LINATTN_EMULATOR_LOSE");
  return text && launches.load() >= std::atol(text) ? cudaErrorIllegalAddress : cudaSuccess;
}

// The GPU's compute capability, as LINATTN_EMULATOR_CAPABILITY says it (120 for 12.0), and what a block of it may have.
inline int capability() {
  static const char* text = std::getenv("LINATTN_EMULATOR_CAPABILITY");
  return text ? std::atoi(text) : 90;
}
inline size_t shared_bytes() { return size_t{capability() / 10 == 12 ? 99u : 227u} << 10; }

using Graph = std::vector<std::function<void()>>;
inline thread_local Graph* recorded = nullptr;  // what a capture has so far

inline cudaError_t enqueue(std::function<void()> work) {
  if (recorded) {
    recorded->push_back(std::move(work));
  } else {
    work();
  }
  return cudaSuccess;
}

}  // namespace linattn::cuda::emulator

using cudaStream_t = void*;
using cudaEvent_t = std::chrono::steady_clock::time_point*;
using cudaGraph_t = linattn::cuda::emulator::Graph*;
using cudaGraphExec_t = linattn::cuda::emulator::Graph*;
struct cudaDeviceProp {
  char name[64];
  int major, minor, multiProcessorCount;
  size_t sharedMemPerBlockOptin, totalGlobalMem;
  int l2CacheSize;
};

struct cudaFuncAttributes {
  int ptxVersion;
};

inline const char* cudaGetErrorName(cudaError_t) { return "emulated"; }
inline const char* cudaGetErrorString(cudaError_t) { return "emulated error"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* found, int) {
  const char* asked = std::getenv("LINATTN_EMULATOR_MULTIPROCESSORS");
  const int capability = linattn::cuda::emulator::capability();
  *found = {"emulator",
            capability / 10,
            capability % 10,
            asked ? std::atoi(asked) : 4,
            linattn::cuda::emulator::shared_bytes(),
            size_t{8} << 30,
            1 << 20};
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* found, Kernel) {
  *found = {90};
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
template <class T>
cudaError_t cudaMalloc(T** data, size_t bytes) {
  if (bytes > size_t{8} << 30) return cudaErrorMemoryAllocation;
  *data = static_cast<T*>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
  return *data ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaFree(void* data) {
  std::free(data);
  return cudaSuccess;
}
inline cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned) { return cudaMalloc(data, bytes); }
inline cudaError_t cudaFreeHost(void* data) { return cudaFree(data); }
inline cudaError_t cudaHostRegister(void*, size_t, unsigned) { return cudaSuccess; }
inline cudaError_t cudaHostUnregister(void*) { return cudaSuccess; }
inline cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  *device = host;
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  return linattn::cuda::emulator::enqueue([=] {
    if (bytes > 0) std::memcpy(to, from, bytes);
  });
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  return linattn::cuda::emulator::enqueue([=] {
    if (bytes > 0) std::memset(to, value, bytes);
  });
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = nullptr;
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return linattn::cuda::emulator::state(); }
inline cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  linattn::cuda::emulator::recorded = new linattn::cuda::emulator::Graph();
  return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = std::exchange(linattn::cuda::emulator::recorded, nullptr);
  return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t graph, unsigned) {
  *made = new linattn::cuda::emulator::Graph(*graph);
  return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) { return cudaGraphDestroy(graph); }
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  for (const auto& work : *graph) work();
  return cudaSuccess;
}
inline cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new std::chrono::steady_clock::time_point();
  return cudaSuccess;
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return cudaEventCreate(event); }
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  *event = std::chrono::steady_clock::now();
  return cudaSuccess;
}
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  *milliseconds = std::chrono::duration<float, std::milli>(*to - *from).count();
  return cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return linattn::cuda::emulator::state(); }
