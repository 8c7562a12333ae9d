#include <string>

#include "cuda/error.h"

namespace linattn::cuda {

bool is_lost(cudaError_t result) {
  switch (result) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorHardwareStackError:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorDevicesUnavailable:
    case cudaErrorDeviceUninitialized:
      return true;
    default:
      return false;
  }
}

void check(cudaError_t result) {
  if (result == cudaSuccess) return;
  cudaGetLastError();  // one that is not sticky must not show at the next call
  if (result == cudaErrorMemoryAllocation) throw Error("ERR_OUT_OF_MEMORY", "cuda: no device memory left");
  const std::string what = std::string(cudaGetErrorName(result)) + ", " + cudaGetErrorString(result);
  throw Error(is_lost(result) ? "ERR_DEVICE_LOST" : "ERR_CUDA", "cuda: " + what);
}

}  // namespace linattn::cuda
