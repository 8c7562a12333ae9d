// What a kernel file (x.cc) includes before "cpu/for-each-level.inc": every library header that kernels need, and the
// macros that open a region of the file for the instructions of one CPU level.
//
//   #include "cpu/simd.h"
//   #define LINATTN_KERNELS "cpu/ops/x-kernels.inc"   // static functions, written once, compiled once per level
//   #include "cpu/for-each-level.inc"
//   LINATTN_DISPATCH(cpu.level, kernel)(arguments)    // also LINATTN_DISPATCH(cpu.level, kernel<float, 2>)
//
// Regions, not flags for whole files: with flags, a header's inline function compiled for AVX-512 could be the copy
// that the linker keeps for every machine. So nothing is included inside a region, and all in it has internal linkage.
// The vector interface is in simd-math.inc (top comment).
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "core/dtype.h"
#include "core/half.h"
#include "cpu/level.h"

#define LINATTN_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define LINATTN_BEGIN_TARGET(options) \
  LINATTN_PRAGMA(clang attribute push(__attribute__((target(options))), apply_to = function))
#define LINATTN_END_TARGET LINATTN_PRAGMA(clang attribute pop)
#else
#define LINATTN_BEGIN_TARGET(options) LINATTN_PRAGMA(GCC push_options) LINATTN_PRAGMA(GCC target(options))
#define LINATTN_END_TARGET LINATTN_PRAGMA(GCC pop_options)
#endif

#define LINATTN_INLINE static inline __attribute__((always_inline))

// The function of that name of the running level: all levels have the same signature.
#if defined(__x86_64__)
#define LINATTN_DISPATCH(level, ...)                                        \
  ((level) == ::linattn::cpu::Level::kAvx512Bf16 ? &avx512bf16::__VA_ARGS__ \
   : (level) == ::linattn::cpu::Level::kAvx512   ? &avx512::__VA_ARGS__     \
   : (level) == ::linattn::cpu::Level::kAvx2     ? &avx2::__VA_ARGS__       \
                                                 : &baseline::__VA_ARGS__)
#elif defined(__aarch64__)
#define LINATTN_DISPATCH(level, ...) \
  ((level) == ::linattn::cpu::Level::kNeon ? &neon::__VA_ARGS__ : &baseline::__VA_ARGS__)
#else
#define LINATTN_DISPATCH(level, ...) (&baseline::__VA_ARGS__)
#endif
