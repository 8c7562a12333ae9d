// Blocks of a cluster of sm_90, which run at the same time: a barrier of all their threads, and what one of them has in
// its shared memory (PTX: barrier.cluster, mapa).
#pragma once
#include "cuda/device/mma.cuh"

namespace linattn::cuda {

// All blocks of the cluster have come to cluster_arrive() when cluster_wait() ends, and what they wrote before is seen.
// By all lanes of a warp together.
__device__ __forceinline__ void cluster_arrive() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void cluster_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
#endif
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// Where block `rank` of the cluster has what this block has at `shared`.
__device__ __forceinline__ uint32_t address_in_block(const void* shared, int rank) {
  uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(shared)), "r"(rank));
  return address;
}

__device__ __forceinline__ float load_of_block(const float* shared, int rank) {
  float value;
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(value) : "r"(address_in_block(shared, rank)) : "memory");
  return value;
}

__device__ __forceinline__ float2 load_of_block(const float2* shared, int rank) {
  float2 pair;
  asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];"
               : "=f"(pair.x), "=f"(pair.y)
               : "r"(address_in_block(shared, rank))
               : "memory");
  return pair;
}

#endif

}  // namespace linattn::cuda
