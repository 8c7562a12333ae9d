// Every call of the CUDA runtime goes through check().
#pragma once
#include "core/error.h"
#include "cuda/device/platform.cuh"

namespace linattn::cuda {

// Throws ERR_OUT_OF_MEMORY, ERR_DEVICE_LOST (the context is broken for this process) or ERR_CUDA.
void check(cudaError_t result);
// True for an error after which no call of this process works on the device again.
bool is_lost(cudaError_t result);

}  // namespace linattn::cuda
