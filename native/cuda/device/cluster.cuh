// Blocks of a cluster of sm_90, which run at the same time: a barrier of all their threads, and what one of them has in
// its shared memory (PTX: barrier.cluster, mapa).
#pragma once
#include "cuda/device/bulk.cuh"

namespace linattn::cuda {

// All blocks of the cluster have come to cluster_arrive() when cluster_wait() ends, and what they wrote before is seen.
// By all lanes of a warp together. Not `writes`: nothing but barriers that init() began.
template <bool writes = true>
__device__ __forceinline__ void cluster_arrive() {
#ifdef LINATTN_CUDA_EMULATOR
  emulator::cluster_arrive();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if constexpr (writes) {
    asm volatile("barrier.cluster.arrive.aligned;" ::: "memory");
  } else {
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
  }
#endif
}
__device__ __forceinline__ void cluster_wait() {
#ifdef LINATTN_CUDA_EMULATOR
  emulator::cluster_wait();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
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

// Has a word arrive where block `rank` of the cluster has what this block has at `shared`; it counts as four bytes of
// that block's `barrier` (PTX: st.async).
__device__ __forceinline__ void send_to_block(float* shared, int rank, float value, ByteBarrier& barrier) {
#ifdef LINATTN_CUDA_EMULATOR
  const auto there = [&](auto& own) {
    const std::ptrdiff_t at = reinterpret_cast<unsigned char*>(&own) - emulator::shared_memory;
    return reinterpret_cast<decltype(&own)>(emulator::shared_of_block(rank) + at);
  };
  *there(*shared) = value;
  there(barrier)->step(0, -static_cast<int32_t>(sizeof(value)));
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(address_in_block(shared, rank)),
      "f"(value), "r"(address_in_block(&barrier.word, rank))
      : "memory");
#endif
}

}  // namespace linattn::cuda
