// Copies of boxes of a tensor from global to shared memory by the copy engine of sm_90, with 128-byte swizzle; what the
// engine must know of the tensor is a kernel argument that the driver makes (PTX: cp.async.bulk.tensor).
#pragma once
#include <cuda.h>

#include "cuda/device/bulk.cuh"
#include "cuda/error.h"

namespace linattn::cuda {

// A tensor of 16-bit values: sizes in elements, bytes between neighbours of each dimension but the first, and the box
// that one copy takes.
struct TensorBoxes {
  const void* data;
  uint64_t sizes[5], strides[4];
  uint32_t box[5];
};

// False where the driver has no such maps or refuses this one: addresses and strides are multiples of 16 bytes.
inline bool make_tensor_map(const TensorBoxes& tensor, CUtensorMap& map) {
  using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                              const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                              CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  static const Encode encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result));
    return result == cudaDriverEntryPointSuccess ? reinterpret_cast<Encode>(found) : nullptr;
  }();
  if (!encode) return false;
  const cuuint32_t steps[5] = {1, 1, 1, 1, 1};
  return encode(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 5, const_cast<void*>(tensor.data), tensor.sizes, tensor.strides,
                tensor.box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
// The box whose first element has coordinates c; zeros where it leaves the tensor. By one thread.
__device__ __forceinline__ void copy_box(void* to, const CUtensorMap& map, const int (&c)[5], ByteBarrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5, "
      "%6}], [%7];" ::"r"(shared_address(to)),
      "l"(&map), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]), "r"(c[4]), "r"(shared_address(&barrier.word))
      : "memory");
}
#endif

}  // namespace linattn::cuda
