// Copies of whole runs of bytes from global to shared memory by the copy engine of sm_90, which a barrier in shared
// memory counts (PTX: mbarrier, cp.async.bulk).
#pragma once
#include "cuda/device/mma.cuh"

namespace linattn::cuda {

// Phases follow one another: each ends when the warps, and the bytes announced for it, have arrived.
struct alignas(8) ByteBarrier {
#ifdef LINATTN_CUDA_EMULATOR
  int16_t arrivals, missing;
  int32_t bytes : 31, phase : 1;
#else
  uint64_t word;
#endif

  // By one thread, before any other uses it. A phase has so many arrivals; expect() is one.
  __device__ __forceinline__ void init([[maybe_unused]] uint32_t count = 1) {
#ifdef LINATTN_CUDA_EMULATOR
    arrivals = missing = static_cast<int16_t>(count);
    bytes = phase = 0;
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&word)), "r"(count));
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
  }

  // By one thread, once a phase.
  __device__ __forceinline__ void expect([[maybe_unused]] uint32_t count) {
#ifdef LINATTN_CUDA_EMULATOR
    step(1, static_cast<int32_t>(count));
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&word)), "r"(count)
                 : "memory");
#endif
  }

  // By all lanes of a warp: `count` arrivals.
  __device__ __forceinline__ void arrive([[maybe_unused]] uint32_t count = 1) {
    __syncwarp();
    if (threadIdx.x % kWarp != 0) return;
#ifdef LINATTN_CUDA_EMULATOR
    step(static_cast<int>(count), 0);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&word)), "r"(count) : "memory");
#endif
  }

  // By threads, an arrival each: where other threads read what these wrote (test/gpu/sanitize.js).
  __device__ __forceinline__ void arrive_each() {
#ifdef LINATTN_CUDA_EMULATOR
    step(1, 0);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&word)) : "memory");
#endif
  }

  // By all lanes of a warp: until phase `parity` % 2 has ended; then its bytes are seen.
  __device__ __forceinline__ void wait([[maybe_unused]] uint32_t parity) {
#ifdef LINATTN_CUDA_EMULATOR
    while ((phase & 1) == static_cast<int>(parity & 1)) emulator::yield();
    emulator::warp_barrier();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile(
        "{.reg .pred done;\n"
        "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;}\n" ::"r"(shared_address(&word)),
        "r"(parity)
        : "memory");
#endif
  }
  // Whether it has.
  __device__ __forceinline__ bool has_ended([[maybe_unused]] uint32_t parity) const {
#ifdef LINATTN_CUDA_EMULATOR
    return (phase & 1) != static_cast<int>(parity & 1);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    uint32_t ended;
    asm volatile(
        "{.reg .pred done;\n"
        "mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
        "selp.u32 %0, 1, 0, done;}\n"
        : "=r"(ended)
        : "r"(shared_address(&word)), "r"(parity)
        : "memory");
    return ended != 0;
#else
    return true;
#endif
  }
  // The same where other blocks of the cluster send the bytes.
  __device__ __forceinline__ void wait_for_blocks([[maybe_unused]] uint32_t parity) {
#ifdef LINATTN_CUDA_EMULATOR
    wait(parity);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile(
        "{.reg .pred done;\n"
        "again: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;}\n" ::"r"(shared_address(&word)),
        "r"(parity)
        : "memory");
#endif
  }

#ifdef LINATTN_CUDA_EMULATOR
  // So many arrivals, and bytes that are to come or, below 0, have.
  void step(int count, int32_t to_come) {
    missing = static_cast<int16_t>(missing - count);
    bytes = bytes + to_come;
    emulator::progressed();
    if (missing > 0 || bytes != 0) return;
    missing = arrivals;
    phase = phase ^ 1;
  }
#endif
};

// By all lanes of a warp: until the first phase of one of them has ended.
__device__ __forceinline__ void wait_for_either(const ByteBarrier& one, const ByteBarrier& other) {
  while (!one.has_ended(0) && !other.has_ended(0)) {
#ifdef LINATTN_CUDA_EMULATOR
    emulator::yield();
#endif
  }
  __syncwarp();
}

// Bytes that a block asks for at once where other kernels wait for small loads meanwhile: on an H200, 40 KB of each
// multiprocessor come at 3.8 TB/s while a load from the second cache takes 560 cycles; with 128 KB these are 4.4 TB/s
// and 2,400, with 16 KB 3.0 and 340.
constexpr int kBulkAtOnce = 40 * 1024;

// Addresses and size are multiples of 16.
__device__ __forceinline__ void copy_bulk(void* to, const void* from, uint32_t bytes,
                                          [[maybe_unused]] ByteBarrier& barrier) {
#ifdef LINATTN_CUDA_EMULATOR
  std::memcpy(to, from, bytes);
  barrier.step(0, -static_cast<int32_t>(bytes));
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
  barrier.step(0, -static_cast<int32_t>(bytes));
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

// Has the second cache fetch what copy_bulk_once() is to copy.
__device__ __forceinline__ void prefetch_bulk_once([[maybe_unused]] const void* from, [[maybe_unused]] uint32_t bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "{.reg .b64 policy;\n"
      "createpolicy.fractional.L2::evict_first.b64 policy, 1.0;\n"
      "cp.async.bulk.prefetch.L2.global.L2::cache_hint [%0], %1, policy;}\n" ::"l"(from),
      "r"(bytes)
      : "memory");
#endif
}

}  // namespace linattn::cuda
