// Matrix instructions of sm_80 and their copies, with the fragments that PTX documents ("Matrix multiply-accumulate
// operation using mma instruction"). Lane l of a warp has group g = l / 4 and place p = l % 4.
#pragma once
#include "core/dtype.h"
#include "cuda/device/float.cuh"
#include "cuda/device/platform.cuh"

namespace linattn::cuda {

#ifndef LINATTN_CUDA_EMULATOR
__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
#endif

// d += a b: a 16 x 16 row-major, b 16 x 8 column-major, d 16 x 8, of bfloat16 or float16 with float32 sums.
// a[0..3]: rows g, g + 8, g, g + 8 and columns 2p, 2p, 2p + 8, 2p + 8 (pairs); b[0..1]: rows 2p, 2p + 8 of column g
// (pairs); d: (g, 2p), (g, 2p + 1), (g + 8, 2p), (g + 8, 2p + 1).
template <class T>
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef LINATTN_CUDA_EMULATOR
  struct Given {
    uint32_t a[4], b[2];
  } given;
  std::memcpy(given.a, a, sizeof(a));
  std::memcpy(given.b, b, sizeof(b));
  Given all[32];
  std::memcpy(all, emulator::warp_exchange(&given, sizeof(given)), sizeof(all));
  const auto half = [](uint32_t pair, int high) {
    return as_float(T{static_cast<uint16_t>(high ? pair >> 16 : pair & 0xffff)});
  };
  const int lane = emulated_lane(), g = lane / 4, p = lane % 4;
  for (int i = 0; i < 4; i++) {
    const int row = g + (i / 2) * 8, column = 2 * p + i % 2;
    float sum = d[i];
    for (int k = 0; k < 16; k++) {
      const uint32_t left = all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2];
      const uint32_t right = all[column * 4 + k % 8 / 2].b[k / 8];
      sum += half(left, k % 2) * half(right, k % 2);
    }
    d[i] = sum;
  }
#else
  if constexpr (sizeof(T) == 2 && std::is_same_v<T, bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#endif
}

// d += a b in tf32: a 16 x 8, b 8 x 8, float32 bits (the low 13 of the fraction are ignored by the hardware).
// a[0..3]: (g, p), (g + 8, p), (g, p + 4), (g + 8, p + 4); b[0..1]: rows p, p + 4 of column g; d as above.
__device__ __forceinline__ void mma_16x8x8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef LINATTN_CUDA_EMULATOR
  struct Given {
    uint32_t a[4], b[2];
  } given;
  std::memcpy(given.a, a, sizeof(a));
  std::memcpy(given.b, b, sizeof(b));
  Given all[32];
  std::memcpy(all, emulator::warp_exchange(&given, sizeof(given)), sizeof(all));
  const auto value = [](uint32_t bits) { return __uint_as_float(bits & ~0x1fffu); };
  const int lane = emulated_lane(), g = lane / 4, p = lane % 4;
  for (int i = 0; i < 4; i++) {
    const int row = g + (i / 2) * 8, column = 2 * p + i % 2;
    float sum = d[i];
    for (int k = 0; k < 8; k++) {
      sum += value(all[row % 8 * 4 + k % 4].a[row / 8 + k / 4 * 2]) * value(all[column * 4 + k % 4].b[k / 4]);
    }
    d[i] = sum;
  }
#else
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// Four 8 x 8 tiles of 16-bit values from shared memory: lane l gives the address of row l % 8 of tile l / 8 (16 bytes,
// aligned), and gets of tile i the pair at row g, columns 2p and 2p + 1; with `transposed` of column g, rows 2p, 2p
// + 1.
template <bool transposed = false>
__device__ __forceinline__ void load_tiles_x4(uint32_t (&to)[4], const void* row) {
#ifdef LINATTN_CUDA_EMULATOR
  const void* rows[32];
  std::memcpy(rows, emulator::warp_exchange(&row, sizeof(row)), sizeof(rows));
  const int lane = emulated_lane(), g = lane / 4, p = lane % 4;
  for (int i = 0; i < 4; i++) {
    const auto at = [&](int r, int c) { return static_cast<const uint16_t*>(rows[i * 8 + r])[c]; };
    const uint16_t low = transposed ? at(2 * p, g) : at(g, 2 * p);
    const uint16_t high = transposed ? at(2 * p + 1, g) : at(g, 2 * p + 1);
    to[i] = low | static_cast<uint32_t>(high) << 16;
  }
  emulator::warp_barrier();
#else
  if constexpr (transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row)));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row)));
  }
#endif
}

// 16 bytes from global to shared memory in the background; zeros when `present` is false (nothing is read then).
__device__ __forceinline__ void copy_async_16(void* to, const void* from, bool present = true) {
#ifdef LINATTN_CUDA_EMULATOR
  if (present) {
    std::memcpy(to, from, 16);
  } else {
    std::memset(to, 0, 16);
  }
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)), "l"(from),
               "r"(present ? 16 : 0));
#endif
}

__device__ __forceinline__ void copy_async_commit() {
#ifndef LINATTN_CUDA_EMULATOR
  asm volatile("cp.async.commit_group;\n" ::);
#endif
}

// Waits until at most `pending` committed groups of this thread are still under way.
template <int pending>
__device__ __forceinline__ void copy_async_wait() {
#ifndef LINATTN_CUDA_EMULATOR
  asm volatile("cp.async.wait_group %0;\n" ::"n"(pending));
#endif
}

// Two floats as a pair of 16-bit values, the first one low.
template <class T>
__device__ __forceinline__ uint32_t pack_pair(float low, float high) {
#ifdef LINATTN_CUDA_EMULATOR
  return static_cast<uint32_t>(from_float<T>(low).bits) | static_cast<uint32_t>(from_float<T>(high).bits) << 16;
#else
  uint32_t pair;
  if constexpr (std::is_same_v<T, bfloat16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  }
  return pair;
#endif
}

// An 8 x 8 matrix of 16-bit values, of which a lane has columns 2p and 2p + 1 of row g, becomes its transpose.
__device__ __forceinline__ uint32_t transpose_8x8(uint32_t pair) {
#ifdef LINATTN_CUDA_EMULATOR
  const int lane = emulated_lane(), g = lane / 4, p = lane % 4;
  const uint32_t first = __shfl_sync(0xffffffffu, pair, 2 * p * 4 + g / 2);
  const uint32_t second = __shfl_sync(0xffffffffu, pair, (2 * p + 1) * 4 + g / 2);
  const int shift = g % 2 * 16;
  return (first >> shift & 0xffff) | (second >> shift & 0xffff) << 16;
#else
  uint32_t transposed;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;\n" : "=r"(transposed) : "r"(pair));
  return transposed;
#endif
}

}  // namespace linattn::cuda
