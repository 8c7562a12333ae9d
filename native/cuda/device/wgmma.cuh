// Matrix instructions of sm_90a (PTX: wgmma): a warpgroup, four warps from a multiple of four on, multiplies in the
// background. Operands in shared memory are 16-bit values in tiles of 8 rows x 64 columns, 1024 bytes, aligned to them:
// first those of rows 0 to 7, then those of rows 8 to 15. Row r of a tile is 128 bytes, its piece p of 16 bytes at
// place p ^ r (128-byte swizzle). In the sums d, 64 x N, warp w of the four has rows 16 w to 16 w + 15 as mma_16x8x16
// has them: d[4 n + i] is value i of the 16 x 8 tile n. A left operand in registers is the a[4] of mma_16x8x16.
#pragma once
#include "cuda/device/mma.cuh"

namespace linattn::cuda {

constexpr int kWarpgroup = 128;  // threads
constexpr int kTileRows = 8, kTileColumns = 64;
constexpr int kTileBytes = 1024;

// Where piece p of row r lies, in elements, with kColumns columns.
template <int kColumns>
__device__ __forceinline__ int wgmma_place(int row, int piece) {
  return (row / 8 * (kColumns / kTileColumns) + piece / 8) * 512 + row % 8 * kTileColumns + (piece % 8 ^ row % 8) * 8;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// An operand with kColumns columns that begins at a tile.
template <int kColumns>
__device__ __forceinline__ uint64_t wgmma_operand(const void* p) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62, kRowOfTiles = kColumns / kTileColumns * kTileBytes;
  return (shared_address(p) & 0x3ffff) >> 4 | uint64_t{kTileBytes >> 4} << 16 | kRowOfTiles >> 4 << 32 | kSwizzle128;
}

// The same operand `bytes` further.
__device__ __forceinline__ uint64_t wgmma_further(uint64_t operand, uint32_t bytes) { return operand + (bytes >> 4); }

// Before the first product after sums or left operands in registers were written.
__device__ __forceinline__ void wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }

__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }

// Until at most `pending` committed groups are under way.
template <int pending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(pending) : "memory");
}

// After the wait for the products that write these sums (and before them), so that no use of them moves across it.
template <int kCount>
__device__ __forceinline__ void wgmma_settled(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i++) asm volatile("" : "+f"(d[i])::"memory");
}

// What a thread wrote into shared memory is seen by the products that follow a barrier after this.
__device__ __forceinline__ void wgmma_publish() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }

#define LINATTN_TEN(t) "%" t "0,%" t "1,%" t "2,%" t "3,%" t "4,%" t "5,%" t "6,%" t "7,%" t "8,%" t "9"
#define LINATTN_NAMES_32 LINATTN_TEN("") "," LINATTN_TEN("1") "," LINATTN_TEN("2") ",%30,%31"
#define LINATTN_NAMES_40 LINATTN_TEN("") "," LINATTN_TEN("1") "," LINATTN_TEN("2") "," LINATTN_TEN("3")
#define LINATTN_NAMES_64 LINATTN_NAMES_40 "," LINATTN_TEN("4") "," LINATTN_TEN("5") ",%60,%61,%62,%63"
#define LINATTN_NAMES_128                                                                                               \
  LINATTN_NAMES_40 "," LINATTN_TEN("4") "," LINATTN_TEN("5") "," LINATTN_TEN("6") "," LINATTN_TEN("7") "," LINATTN_TEN( \
      "8") "," LINATTN_TEN("9") "," LINATTN_TEN("10") "," LINATTN_TEN("11") ",%120,%121,%122,%123,%124,%125,%126,%127"
#define LINATTN_SUMS_8(i)                                                                                     \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define LINATTN_SUMS_32(i) LINATTN_SUMS_8(i), LINATTN_SUMS_8(i + 8), LINATTN_SUMS_8(i + 16), LINATTN_SUMS_8(i + 24)
#define LINATTN_LIST_32 LINATTN_SUMS_32(0)
#define LINATTN_LIST_40 LINATTN_LIST_32, LINATTN_SUMS_8(32)
#define LINATTN_LIST_64 LINATTN_LIST_32, LINATTN_SUMS_32(32)
#define LINATTN_LIST_128 LINATTN_LIST_64, LINATTN_SUMS_32(64), LINATTN_SUMS_32(96)

// `left`: the names of the left operand; `right`, `add`, `transposed`: the names of the others.
#define LINATTN_WGMMA(count, n, type, left, scale, right, add, transposed, ...)                          \
  asm volatile("{.reg .pred add;\n setp.ne.b32 add, " add                                                \
               ", 0;\n"                                                                                  \
               "wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " {" LINATTN_NAMES_##count \
               "}, " left ", " right ", add, 1, 1" scale ", " transposed ";}\n"                          \
               : LINATTN_LIST_##count                                                                    \
               : __VA_ARGS__)
#define LINATTN_WGMMA_SHARED(count, n, type, i0, i1, i2, i3) \
  LINATTN_WGMMA(count, n, type, i0, ", 0", i1, i2, i3, "l"(a), "l"(b), "r"(int{add}), "n"(int{transposed}))
#define LINATTN_WGMMA_REGISTERS(count, n, type, i0, i1, i2, i3, i4, i5, i6)                                       \
  LINATTN_WGMMA(count, n, type, "{" i0 "," i1 "," i2 "," i3 "}", "", i4, i5, i6, "r"(a[0]), "r"(a[1]), "r"(a[2]), \
                "r"(a[3]), "l"(b), "r"(int{add}), "n"(int{transposed}))

// d = a b, with `add` d += a b: a 64 x 16, b 16 x N of bfloat16 or float16, N = 2 kCount. The rows in shared memory
// are those of a, and the columns of b or, `transposed`, the rows of b.
template <class T, bool transposed, int kCount>
__device__ __forceinline__ void wgmma(float (&d)[kCount], uint64_t a, uint64_t b, bool add) {
  static_assert(kCount == 32 || kCount == 40 || kCount == 64 || kCount == 128);
#define LINATTN_CASES(type)                                                                      \
  if constexpr (kCount == 32) LINATTN_WGMMA_SHARED(32, "64", type, "%32", "%33", "%34", "%35");  \
  if constexpr (kCount == 40) LINATTN_WGMMA_SHARED(40, "80", type, "%40", "%41", "%42", "%43");  \
  if constexpr (kCount == 64) LINATTN_WGMMA_SHARED(64, "128", type, "%64", "%65", "%66", "%67"); \
  if constexpr (kCount == 128) LINATTN_WGMMA_SHARED(128, "256", type, "%128", "%129", "%130", "%131")
  if constexpr (std::is_same_v<T, bfloat16>) {
    LINATTN_CASES("bf16");
  } else {
    LINATTN_CASES("f16");
  }
#undef LINATTN_CASES
}

// The same with a in registers.
template <class T, bool transposed, int kCount>
__device__ __forceinline__ void wgmma(float (&d)[kCount], const uint32_t (&a)[4], uint64_t b, bool add) {
  static_assert(kCount == 32 || kCount == 40 || kCount == 64 || kCount == 128);
#define LINATTN_CASES(type)                                                                    \
  if constexpr (kCount == 32)                                                                  \
    LINATTN_WGMMA_REGISTERS(32, "64", type, "%32", "%33", "%34", "%35", "%36", "%37", "%38");  \
  if constexpr (kCount == 40)                                                                  \
    LINATTN_WGMMA_REGISTERS(40, "80", type, "%40", "%41", "%42", "%43", "%44", "%45", "%46");  \
  if constexpr (kCount == 64)                                                                  \
    LINATTN_WGMMA_REGISTERS(64, "128", type, "%64", "%65", "%66", "%67", "%68", "%69", "%70"); \
  if constexpr (kCount == 128)                                                                 \
  LINATTN_WGMMA_REGISTERS(128, "256", type, "%128", "%129", "%130", "%131", "%132", "%133", "%134")
  if constexpr (std::is_same_v<T, bfloat16>) {
    LINATTN_CASES("bf16");
  } else {
    LINATTN_CASES("f16");
  }
#undef LINATTN_CASES
}

#undef LINATTN_WGMMA_REGISTERS
#undef LINATTN_WGMMA_SHARED
#undef LINATTN_WGMMA
#undef LINATTN_LIST_128
#undef LINATTN_LIST_64
#undef LINATTN_LIST_40
#undef LINATTN_LIST_32
#undef LINATTN_SUMS_32
#undef LINATTN_SUMS_8
#undef LINATTN_NAMES_128
#undef LINATTN_NAMES_64
#undef LINATTN_NAMES_40
#undef LINATTN_NAMES_32
#undef LINATTN_TEN

#endif

}  // namespace linattn::cuda
