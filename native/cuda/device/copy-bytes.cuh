// Copies of whole rows by the threads of a block, in words as wide as addresses and sizes allow.
#pragma once
#include <cstdint>

#include "cuda/device/platform.cuh"

namespace linattn::cuda {

// body(W{}) with the widest type that divides all of `bits`: addresses and sizes in bytes, or'ed.
template <class Body>
void for_word(uintptr_t bits, Body&& body) {
  if (bits % 16 == 0) return body(uint4{});
  if (bits % 4 == 0) return body(uint32_t{});
  return body(uint8_t{});
}

// Words [begin, end).
template <class W>
__device__ __forceinline__ void copy_words(W* to, const W* from, int64_t begin, int64_t end) {
  const auto threads = static_cast<int64_t>(blockDim.x);
  int64_t i = begin + threadIdx.x;
  for (; i + 3 * threads < end; i += 4 * threads) {
    W words[4];
#pragma unroll
    for (int u = 0; u < 4; u++) words[u] = from[i + u * threads];
#pragma unroll
    for (int u = 0; u < 4; u++) to[i + u * threads] = words[u];
  }
  for (; i < end; i += threads) to[i] = from[i];
}

}  // namespace linattn::cuda
