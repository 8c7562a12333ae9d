// Barriers in shared memory between warps that fill stages of it and warps that read them (PTX: mbarrier), and barriers
// of some warps of a block.
#pragma once
#include "cuda/device/mma.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
namespace linattn::cuda {

// Phases follow one another: each ends when so many warps as init() was told have arrived.
struct alignas(8) StageBarrier {
  uint64_t word;

  // By one thread, before a barrier of the block.
  __device__ __forceinline__ void init(uint32_t warps) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&word)), "r"(warps) : "memory");
  }

  // By all lanes of a warp.
  __device__ __forceinline__ void arrive() {
    __syncwarp();
    if (threadIdx.x % kWarp == 0) {
      asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&word)) : "memory");
    }
  }

  // Until phase `parity` % 2 has ended; the one before the first counts as ended.
  __device__ __forceinline__ void wait(uint32_t parity) {
    asm volatile(
        "{.reg .pred done;\n"
        "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;}\n" ::"r"(shared_address(&word)),
        "r"(parity)
        : "memory");
  }
};

// Barrier `id`, 1 to 15, of `threads` threads of the block.
__device__ __forceinline__ void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Registers of each thread of the warpgroup from here on.
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace linattn::cuda
#endif
