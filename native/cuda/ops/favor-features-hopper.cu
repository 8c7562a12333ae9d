// FAVOR+ features of bfloat16 vectors on Hopper. A warpgroup takes 64 vectors and all directions: their product, exact
// to float32 as that of favor-features-product.cu, stays in registers until the maximum is known. Both operands have
// their columns, and the directions their rows, in an order by which a thread loads and stores 16 bytes at a time.
#ifdef LINATTN_CUDA_EMULATOR
#include "cuda/ops/favor-features.cuh"

namespace linattn::cuda::favor {

bool find_peaks_on_hopper(const Favor<bfloat16>&, Cuda&) { return false; }
bool make_features_on_hopper(const Favor<bfloat16>&, Cuda&) { return false; }

}  // namespace linattn::cuda::favor
#else
#include <algorithm>

#include "cuda/device/hopper.cuh"
#include "cuda/device/warp.cuh"
#include "cuda/device/wgmma.cuh"
#include "cuda/ops/favor-features.cuh"
#include "cuda/ops/float-parts.cuh"

namespace linattn::cuda::favor {
namespace {

constexpr int kWarpgroups = 2;  // of a block
constexpr int kThreads = kWarpgroups * kWarpgroup;
constexpr int kRows = 64;  // of a warpgroup
constexpr int kParts = 3;  // of a direction's values

template <int kColumnsGiven, int kDirectionsGiven>
struct Shape {
  static constexpr int kColumns = kColumnsGiven;
  static constexpr int kDirections = kDirectionsGiven;
  static constexpr int kPart = kColumns * kDirections;  // values
  static constexpr size_t kBytes = size_t{kParts} * kPart * sizeof(bfloat16);
  static constexpr int kBlocks = kDirections == 256 ? 1 : kDirections == 128 ? 2 : 3;  // of a multiprocessor
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Where the product has column c: of each 32, place p of a quad has pairs 2 p of four 8, and they are 8 p to 8 p + 7.
__device__ __forceinline__ int place_of(int c) { return c / 32 * 32 + c % 8 / 2 * 8 + c % 32 / 8 * 2 + c % 2; }

// The directions as a right operand, a part after the other. Many loads are under way.
template <class Shape>
__device__ __forceinline__ void put_directions(const Favor<bfloat16>& a, bfloat16* to) {
  constexpr int kAhead = 8, kFours = Shape::kColumns / 4, kCount = Shape::kDirections * kFours;
  static_assert(kCount % kThreads == 0);
  const auto* const from = reinterpret_cast<const float4*>(a.directions_of) + threadIdx.x;
  for (int first = 0; first < kCount; first += kAhead * kThreads) {
    float4 loaded[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; i++) {
      if (first + i * kThreads < kCount) loaded[i] = from[first + i * kThreads];
    }
#pragma unroll
    for (int i = 0; i < kAhead; i++) {
      if (first + i * kThreads >= kCount) break;
      const int at = first + i * kThreads + static_cast<int>(threadIdx.x);
      const int row = place_of(at / kFours), column = place_of(at % kFours * 4);
      float rest[4] = {loaded[i].x, loaded[i].y, loaded[i].z, loaded[i].w};
#pragma unroll
      for (int part = 0; part < kParts; part++) {
#pragma unroll
        for (int pair = 0; pair < 2; pair++) {
          float &even = rest[pair * 2], &odd = rest[pair * 2 + 1];
          const float low = leading_part(even), high = leading_part(odd);
          const int piece = column / 8 + pair;
          bfloat16* const place = to + part * Shape::kPart + wgmma_place<Shape::kColumns>(row, piece) + column % 8;
          *reinterpret_cast<uint32_t*>(place) = pack_pair<bfloat16>(low, high);
          even = rest_of(even, low);
          odd = rest_of(odd, high);
        }
      }
    }
  }
}

// 64 vectors of a warpgroup, of which a thread has rows g and g + 8 of its warp's 16 and, of these, place p of each
// quad.
template <class Shape, FavorKind kind>
struct Tile {
  static constexpr int kSteps = Shape::kColumns / 16, kLoads = Shape::kColumns / 32, kSums = Shape::kDirections / 2;
  const Favor<bfloat16>& a;
  int p;
  uint32_t row[2];
  uint32_t x[kSteps][4];
  float norm[2];  // |y|^2 / 2
  float u[kSums];

  __device__ __forceinline__ bool present(int low) const { return row[low] < a.rows; }

  __device__ __forceinline__ void load(uint32_t first, uint4 (&to)[2][kLoads]) const {
#pragma unroll
    for (int low = 0; low < 2; low++) {
      const uint32_t at = first + low * 8;
      const auto* const from = reinterpret_cast<const uint4*>(a.row(at < a.rows ? at : 0)) + p;
#pragma unroll
      for (int i = 0; i < kLoads; i++) to[low][i] = at < a.rows ? from[i * 4] : uint4{};
    }
  }

  __device__ __forceinline__ void take(uint32_t first, const uint4 (&loaded)[2][kLoads]) {
#pragma unroll
    for (int low = 0; low < 2; low++) {
      row[low] = first + low * 8;
      float squares = 0.0f;
#pragma unroll
      for (int i = 0; i < kLoads; i++) {
        const uint32_t pairs[4] = {loaded[low][i].x, loaded[low][i].y, loaded[low][i].z, loaded[low][i].w};
#pragma unroll
        for (int j = 0; j < 4; j++) {
          x[i * 2 + j / 2][j % 2 * 2 + low] = pairs[j];
          const float even = __uint_as_float(pairs[j] << 16) * a.scale;
          const float odd = __uint_as_float(pairs[j] & 0xffff0000u) * a.scale;
          squares = fmaf(even, even, fmaf(odd, odd, squares));
        }
      }
      squares += __shfl_xor_sync(kFullMask, squares, 1);
      squares += __shfl_xor_sync(kFullMask, squares, 2);
      norm[low] = 0.5f * squares;
    }
  }

  // The operands of products stay in these registers.
  __device__ __forceinline__ void hold() {
    wgmma_settled(u);
#pragma unroll
    for (int i = 0; i < kSteps * 4; i++) asm volatile("" : "+r"(x[i / 4][i % 4])::"memory");
  }

  // In the background, until settle().
  __device__ __forceinline__ void multiply(uint64_t directions) {
    hold();
    wgmma_begin();
#pragma unroll
    for (int step = 0; step < kSteps; step++) {
#pragma unroll
      for (int part = kParts - 1; part >= 0; part--) {
        const uint32_t further = part * Shape::kPart * 2 + step / 4 * kTileBytes + step % 4 * 32;
        wgmma<bfloat16, false>(u, x[step], wgmma_further(directions, further), step > 0 || part < kParts - 1);
      }
    }
    wgmma_commit();
  }

  __device__ __forceinline__ void settle() {
    wgmma_wait<0>();
    hold();
  }

  // The same in the four lanes of a quad.
  __device__ __forceinline__ float peak(int low) const {
    float top = -INFINITY;
#pragma unroll
    for (int i = 0; i < kSums / 2; i++) top = fmaxf(top, u[i / 2 * 4 + low * 2 + i % 2]);
    if constexpr (kind == FavorKind::kHyperbolic) {
#pragma unroll
      for (int i = 0; i < kSums / 2; i++) top = fmaxf(top, -u[i / 2 * 4 + low * 2 + i % 2]);
    }
    top = fmaxf(top, __shfl_xor_sync(kFullMask, top, 1));
    top = fmaxf(top, __shfl_xor_sync(kFullMask, top, 2));
    return a.own_peak(top, norm[low]);
  }

  template <class Feature>
  __device__ __forceinline__ void store(int low, int column, Feature&& feature) const {
    if (!present(low)) return;
    auto* const to = reinterpret_cast<uint4*>(a.out + static_cast<int64_t>(row[low]) * a.width + column) + p;
#pragma unroll
    for (int i = 0; i < Shape::kDirections / 32; i++) {
      uint32_t pairs[4];
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const float* const two = u + (i * 4 + j) * 4 + low * 2;
        pairs[j] = pack_pair<bfloat16>(feature(two[0]), feature(two[1]));
      }
      to[i * 4] = uint4{pairs[0], pairs[1], pairs[2], pairs[3]};
    }
  }

  __device__ __forceinline__ void put_features() const {
    const float ratio = 1.0f / sqrtf(static_cast<float>(a.width)), least = ratio * a.eps;
#pragma unroll
    for (int low = 0; low < 2; low++) {
      if constexpr (kind == FavorKind::kRelu) {
        store(low, 0, [&](float value) { return (value < 0 ? 0 : value) + a.eps; });
      } else {
        float shift = norm[low];
        if (a.maximum == FavorMaximum::kToken) shift += peak(low);
        if (a.has_peaks() && present(low)) shift += a.peak_of(row[low]);
        store(low, 0, [&](float value) { return fmaf(ratio, __expf(value - shift), least); });
        if constexpr (kind == FavorKind::kHyperbolic) {
          store(low, Shape::kDirections, [&](float value) { return fmaf(ratio, __expf(-value - shift), least); });
        }
      }
    }
  }
};

#endif

// Empty but for sm_90a; there it declares shared memory, by which is_for_hopper() knows it.
template <class Shape, FavorKind kind, bool peaks_only>
__global__ void __launch_bounds__(kThreads, Shape::kBlocks) hopper_kernel(const __grid_constant__ Favor<bfloat16> a) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  __shared__ volatile int declared;
  declared = 1;
  auto* const directions = dynamic_shared<bfloat16>();
  // Between the peaks and this only spread_peaks ran, which waited for all before it.
  const bool inputs_ready = !peaks_only && a.has_peaks();
  if (!inputs_ready) wait_for_inputs();
  put_directions<Shape>(a, directions);
  wgmma_publish();
  __syncthreads();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const uint64_t operand = wgmma_operand<Shape::kColumns>(directions);
  const uint32_t step = gridDim.x * kWarpgroups * kRows;
  uint32_t first = (blockIdx.x * kWarpgroups * 4 + warp) * 16 + lane / 4;  // of this thread
  Tile<Shape, kind> tile{a, lane % 4};
  uint4 loaded[2][Tile<Shape, kind>::kLoads];
  tile.load(first, loaded);
  if (inputs_ready) wait_for_inputs();
  // All threads of a warpgroup go on as long as its first row is there.
  for (uint32_t begin = blockIdx.x * kWarpgroups * kRows + warp / 4 * kRows; begin < a.rows; begin += step) {
    tile.take(first, loaded);
    tile.multiply(operand);
    first += step;
    tile.load(first, loaded);
    tile.settle();
    if constexpr (peaks_only) {
#pragma unroll
      for (int low = 0; low < 2; low++) {
        const float peak = tile.peak(low);
        if (tile.p == 0 && tile.present(low)) a.peak_of(tile.row[low]) = peak;
      }
    } else {
      tile.put_features();
    }
  }
#endif
}

template <class Shape, FavorKind kind, bool peaks_only>
bool start_kind(const Favor<bfloat16>& a, Cuda& cuda) {
  const auto kernel = hopper_kernel<Shape, kind, peaks_only>;
  if (!is_for_hopper(kernel)) return false;
  const int64_t needed = ceil_div(a.rows, kWarpgroups * kRows);
  const int64_t held = int64_t{Shape::kBlocks} * cuda.properties.multiprocessors;
  const auto blocks = static_cast<unsigned>(std::min(needed, held));
  launch_early(cuda, kernel, blocks, kThreads, Shape::kBytes, a);
  return true;
}

template <class Shape, bool peaks_only>
bool start_shape(const Favor<bfloat16>& a, Cuda& cuda) {
  switch (a.kind) {
    case FavorKind::kPositive:
      return start_kind<Shape, FavorKind::kPositive, peaks_only>(a, cuda);
    case FavorKind::kHyperbolic:
      return start_kind<Shape, FavorKind::kHyperbolic, peaks_only>(a, cuda);
    case FavorKind::kRelu:
      if constexpr (!peaks_only) return start_kind<Shape, FavorKind::kRelu, false>(a, cuda);
  }
  return false;
}

template <bool peaks_only>
bool start(const Favor<bfloat16>& a, Cuda& cuda) {
  // Rows are counted in 32 bits, up to one step of the grid beyond the last.
  if (cuda.properties.capability != 90 || !a.by_pieces || a.rows > INT32_MAX) return false;
  const auto sizes = [&](int size, int directions) { return a.size == size && a.directions == directions; };
  if (sizes(64, 64)) return start_shape<Shape<64, 64>, peaks_only>(a, cuda);
  if (sizes(64, 128)) return start_shape<Shape<64, 128>, peaks_only>(a, cuda);
  if (sizes(64, 256)) return start_shape<Shape<64, 256>, peaks_only>(a, cuda);
  if (sizes(128, 128)) return start_shape<Shape<128, 128>, peaks_only>(a, cuda);
  return false;
}

}  // namespace

bool find_peaks_on_hopper(const Favor<bfloat16>& favor, Cuda& cuda) { return start<true>(favor, cuda); }
bool make_features_on_hopper(const Favor<bfloat16>& favor, Cuda& cuda) { return start<false>(favor, cuda); }

}  // namespace linattn::cuda::favor
#endif
