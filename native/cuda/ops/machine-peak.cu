// machinePeak by the GPU's own clock: read by a kernel before the work and by one after it, so that the host waits for
// nothing.
#include "ops/machine-peak.h"

#ifdef LINATTN_CUDA_EMULATOR
#include <chrono>
#endif

#include "cuda/device/launch.cuh"
#include "cuda/device/mma.cuh"
#include "cuda/device/warp.cuh"

namespace linattn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksOfMultiprocessor = 8;
constexpr int kChains = 8;
#ifdef LINATTN_CUDA_EMULATOR
constexpr int kSteps = 256, kMatrixSteps = 4;
#else
constexpr int kSteps = 40'000, kMatrixSteps = 4'000;
#endif

struct Measure {
  unsigned long long began;  // nanoseconds
  unsigned long long work;   // operations or bytes
};

__device__ unsigned long long nanoseconds() {
#ifdef LINATTN_CUDA_EMULATOR
  return static_cast<unsigned long long>(std::chrono::steady_clock::now().time_since_epoch().count());
#else
  unsigned long long time;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time)::"memory");
  return time;
#endif
}

__global__ void begin(Measure* measure, unsigned long long work) { *measure = {nanoseconds(), work}; }

__global__ void end(const Measure* measure, float* out) {
  *out = static_cast<float>(static_cast<double>(measure->work) / static_cast<double>(nanoseconds() - measure->began));
}

// `kept` is never true, which the compiler cannot know.
__device__ __forceinline__ void keep(float x, float* out, bool kept) {
  if (kept) *out = x;
}

__global__ void __launch_bounds__(kThreads) multiply_adds(int steps, float factor, float* out) {
  float chain[kChains];
#pragma unroll
  for (int i = 0; i < kChains; i++) chain[i] = static_cast<float>(threadIdx.x + i);
  for (int step = 0; step < steps; step++) {
#pragma unroll
    for (int i = 0; i < kChains; i++) chain[i] = __fmaf_rn(chain[i], factor, 0.5f);
  }
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kChains; i++) sum += chain[i];
  keep(sum, out, steps < 0);
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// Products 64 x 128 x 16 of a warpgroup, one operand in registers, the other 4 KiB of shared memory.
constexpr unsigned long long kProductOperations = 2 * 64 * 128 * 16;
constexpr int kProductThreads = 128;
constexpr int kAtOnce = 8;
static_assert(kMatrixSteps % kAtOnce == 0);

__device__ __forceinline__ void add_product(float (&d)[64], uint32_t left, uint64_t right) {
#define LINATTN_FOUR(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define LINATTN_SIXTEEN(i) LINATTN_FOUR(i), LINATTN_FOUR(i + 4), LINATTN_FOUR(i + 8), LINATTN_FOUR(i + 12)
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
      "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
      "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
      "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63},"
      "{%64,%64,%64,%64}, %65, 1, 1, 1, 0;\n"
      : LINATTN_SIXTEEN(0), LINATTN_SIXTEEN(16), LINATTN_SIXTEEN(32), LINATTN_SIXTEEN(48)
      : "r"(left), "l"(right));
#undef LINATTN_SIXTEEN
#undef LINATTN_FOUR
}

__device__ __forceinline__ void matrix_products(float (&sums)[kChains], int steps) {
  __shared__ __align__(128) uint16_t right[128 * 16];
  for (int i = static_cast<int>(threadIdx.x); i < 128 * 16; i += kThreads) {
    right[i] = static_cast<uint16_t>(0x3c00 + i % 251);
  }
  __syncthreads();
  // Without swizzle: 8 x 8 tiles of 128 bytes, one after the other.
  const uint64_t descriptor =
      ((shared_address(right) & 0x3ffff) >> 4) | uint64_t{128 >> 4} << 16 | uint64_t{256 >> 4} << 32;
  const uint32_t left = 0x3c003c00u + threadIdx.x * 0x10001u;
  float d[64] = {};
  asm volatile("fence.proxy.async;\n" ::: "memory");
  for (int step = 0; step < steps; step += kAtOnce) {
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) add_product(d, left, descriptor);
    asm volatile("wgmma.commit_group.sync.aligned;\n wgmma.wait_group.sync.aligned 0;\n" ::: "memory");
  }
#pragma unroll
  for (int i = 0; i < 64; i++) sums[i % kChains] += d[i];
}
#else
// Products 16 x 8 x 16 of a warp, eight that do not wait for each other a step.
constexpr unsigned long long kProductOperations = kChains * 2 * 16 * 8 * 16;
constexpr int kProductThreads = kWarp;

__device__ __forceinline__ void matrix_products(float (&sums)[kChains], int steps) {
  float d[kChains][4] = {};
  const uint32_t pair = 0x3c003c00u + threadIdx.x * 0x10001u;
  const uint32_t left[4] = {pair, pair, pair, pair}, right[2] = {pair, pair};
  for (int step = 0; step < steps; step++) {
#pragma unroll
    for (int i = 0; i < kChains; i++) mma_16x8x16<bfloat16>(d[i], left, right);
  }
#pragma unroll
  for (int i = 0; i < kChains; i++) sums[i] = d[i][0] + d[i][1] + d[i][2] + d[i][3];
}
#endif

__global__ void __launch_bounds__(kThreads) dot_products(int steps, Measure* measure, float* out) {
  float sums[kChains] = {};
  matrix_products(sums, steps);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kChains; i++) sum += sums[i];
  keep(sum, out, steps < 0);
  if (blockIdx.x != 0 || threadIdx.x != 0) return;
  measure->work =
      gridDim.x * (kThreads / kProductThreads) * static_cast<unsigned long long>(steps) * kProductOperations;
}

__global__ void __launch_bounds__(kThreads) read_all(const float4* values, int64_t count, float* out) {
  constexpr int kUnroll = 8;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * kThreads;
  int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  float sum = 0;
  const auto add = [&sum](const float4& x) { sum += x.x + x.y + x.z + x.w; };
  for (; i + (kUnroll - 1) * threads < count; i += kUnroll * threads) {
    float4 x[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; u++) x[u] = values[i + u * threads];
#pragma unroll
    for (int u = 0; u < kUnroll; u++) add(x[u]);
  }
  for (; i < count; i += threads) add(values[i]);
  keep(sum, out, count < 0);
}

}  // namespace

void run(const MachinePeak& op, Cuda& cuda) {
  auto* out = op.out.as<float>();
  auto* measure = cuda.scratch_of<Measure>(1);
  const dim3 grid(static_cast<unsigned>(cuda.properties.multiprocessors * kBlocksOfMultiprocessor));
  const auto start = [&](unsigned long long work) { launch(cuda, begin, dim3(1), dim3(1), 0, measure, work); };
  switch (op.kind) {
    case PeakKind::kMultiplyAdd:
      start(static_cast<unsigned long long>(grid.x) * kThreads * kSteps * kChains * 2);
      launch(cuda, multiply_adds, grid, dim3(kThreads), 0, kSteps, 0.999f, out);
      break;
    case PeakKind::kDotBFloat16:
      start(0);
      launch(cuda, dot_products, grid, dim3(kThreads), 0, kMatrixSteps, measure, out);
      break;
    case PeakKind::kRead: {
      const int64_t fours = op.values.size() / 4;
      start(static_cast<unsigned long long>(fours) * sizeof(float4));
      launch(cuda, read_all, grid, dim3(kThreads), 0, op.values.as<const float4>(), fours, out);
      break;
    }
  }
  launch(cuda, end, dim3(1), dim3(1), 0, measure, out);
}

}  // namespace linattn::cuda
