// Copies of whole runs of bytes from global to shared memory by the copy engine of sm_90, which a barrier in shared
// memory counts (PTX: mbarrier, cp.async.bulk).
#pragma once
#include "cuda/device/mma.cuh"

namespace linattn::cuda {

// Phases follow one another: each ends when the bytes announced for it have arrived.
struct alignas(8) ByteBarrier {
  uint64_t word;

  // By one thread, before any other uses it.
  __device__ __forceinline__ void init() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(&word)));
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
  }

  // By one thread, once a phase.
  __device__ __forceinline__ void expect([[maybe_unused]] uint32_t bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&word)), "r"(bytes)
                 : "memory");
#endif
  }

  // By all lanes of a warp: until phase `parity` % 2 has ended; then its bytes are seen.
  __device__ __forceinline__ void wait([[maybe_unused]] uint32_t parity) {
#ifdef LINATTN_CUDA_EMULATOR
    emulator::warp_barrier();  // a copy is done when it is called
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile(
        "{.reg .pred done;\n"
        "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;}\n" ::"r"(shared_address(&word)),
        "r"(parity)
        : "memory");
#endif
  }
};

// Addresses and size are multiples of 16.
__device__ __forceinline__ void copy_bulk(void* to, const void* from, uint32_t bytes,
                                          [[maybe_unused]] ByteBarrier& barrier) {
#ifdef LINATTN_CUDA_EMULATOR
  std::memcpy(to, from, bytes);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(&barrier.word))
               : "memory");
#endif
}

// The same of what is read once, as weights are: the second cache gives it up before anything else, so that states,
// keys and instructions stay there while weights pass (PTX: createpolicy).
__device__ __forceinline__ void copy_bulk_once(void* to, const void* from, uint32_t bytes,
                                               [[maybe_unused]] ByteBarrier& barrier) {
#ifdef LINATTN_CUDA_EMULATOR
  std::memcpy(to, from, bytes);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "{.reg .b64 policy;\n"
      "createpolicy.fractional.L2::evict_first.b64 policy, 1.0;\n"
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], policy;}"
      "\n" ::"r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(&barrier.word))
      : "memory");
#endif
}

}  // namespace linattn::cuda
