// FAVOR+ features of bfloat16 vectors with their product on the matrix units, exact to float32: a direction is the sum
// of three bfloat16, which lie in shared memory as fragments. A warp takes 32 vectors, 16 directions at a time; what a
// maximum needs of all directions first is multiplied twice, which costs less than to keep it.
#include <algorithm>

#include "cuda/device/mma.cuh"
#include "cuda/device/warp.cuh"
#include "cuda/ops/favor-features.cuh"
#include "cuda/ops/float-parts.cuh"

namespace linattn::cuda::favor {
namespace {

constexpr int kWarps = 8;
constexpr int kTiles = 2;               // of 16 vectors, of a warp
constexpr int kRows = kTiles * 16;      // of a warp
constexpr int kParts = 3;               // of a direction's values
constexpr int kFragmentBytes = 32 * 8;  // of 8 directions x 16 values

// kSteps: of 16 values, as many as the vectors have at most.
template <int kSteps>
struct Product {
  const Favor<bfloat16>& a;
  const char* fragments;
  int lane, g, p;
  int64_t first;                       // vector of the warp
  uint32_t x[kTiles][kSteps][4] = {};  // zeros where nothing is
  float norm[kTiles][2] = {};          // |y|^2 / 2 of rows g and g + 8

  __device__ __forceinline__ int64_t row(int tile, int low) const { return first + tile * 16 + low * 8 + g; }

  __device__ __forceinline__ void load() {
#pragma unroll
    for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
      for (int low = 0; low < 2; low++) {
        float squares = 0.0f;
        const bool present = row(tile, low) < a.rows;
        const bfloat16* const values = a.row(present ? row(tile, low) : 0);
#pragma unroll
        for (int step = 0; step < kSteps; step++) {
#pragma unroll
          for (int half = 0; half < 2; half++) {
            uint32_t& pair = x[tile][step][half * 2 + low];
            pair = 0;
            if (!present || step * 16 >= a.size) continue;
            const auto* two = reinterpret_cast<const uint16_t*>(values + step * 16 + half * 8 + 2 * p);
            pair = a.by_pairs ? *reinterpret_cast<const uint32_t*>(two) : two[0] | uint32_t{two[1]} << 16;
            const float even = __uint_as_float(pair << 16) * a.scale;
            const float odd = __uint_as_float(pair & 0xffff0000u) * a.scale;
            squares = fmaf(even, even, fmaf(odd, odd, squares));
          }
        }
        squares += __shfl_xor_sync(kFullMask, squares, 1);
        squares += __shfl_xor_sync(kFullMask, squares, 2);
        norm[tile][low] = 0.5f * squares;
      }
    }
  }

  // body(direction, u): u of 16 directions from there on, [tile][8 of them][(g, 2p), (g, 2p + 1), (g + 8, ...)].
  template <class Body>
  __device__ __forceinline__ void each_sixteen(Body&& body) const {
    const int steps = a.size / 16;
    for (int direction = 0; direction < a.directions; direction += 16) {
      float u[kTiles][2][4] = {};
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const char* at = fragments + (direction / 8 + half) * steps * kParts * kFragmentBytes + lane * 8;
#pragma unroll
        for (int step = 0; step < kSteps; step++) {
          if (step >= steps) break;
#pragma unroll
          for (int part = kParts - 1; part >= 0; part--) {
            const uint2 two = *reinterpret_cast<const uint2*>(at + (step * kParts + part) * kFragmentBytes);
            const uint32_t right[2] = {two.x, two.y};
#pragma unroll
            for (int tile = 0; tile < kTiles; tile++) mma_16x8x16<bfloat16>(u[tile][half], x[tile][step], right);
          }
        }
      }
      body(direction, u);
    }
  }

  // Of rows g and g + 8, the same in the four lanes that share them.
  __device__ __forceinline__ void peaks(float (&to)[kTiles][2]) const {
#pragma unroll
    for (int i = 0; i < kTiles * 2; i++) to[i / 2][i % 2] = -INFINITY;
    each_sixteen([&](int, const float (&u)[kTiles][2][4]) {
#pragma unroll
      for (int i = 0; i < kTiles * 8; i++) {
        float& top = to[i / 8][i % 4 / 2];
        top = fmaxf(top, a.exponent_size(u[i / 8][i / 4 % 2][i % 4]));
      }
    });
#pragma unroll
    for (int i = 0; i < kTiles * 2; i++) {
      float& top = to[i / 2][i % 2];
      top = fmaxf(top, __shfl_xor_sync(kFullMask, top, 1));
      top = fmaxf(top, __shfl_xor_sync(kFullMask, top, 2));
      top = a.own_peak(top, norm[i / 2][i % 2]);
    }
  }

  // 16 features of each row: a lane of even place stores four of the first eight, the next one four of the others.
  template <class Feature>
  __device__ __forceinline__ void store(int column, const float (&u)[kTiles][2][4], Feature&& feature) const {
    const bool even = p % 2 == 0;
#pragma unroll
    for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
      for (int low = 0; low < 2; low++) {
        uint32_t pairs[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const float* two = u[tile][half] + low * 2;
          pairs[half] = pack_pair<bfloat16>(feature(two[0], tile, low), feature(two[1], tile, low));
        }
        const uint32_t other = __shfl_xor_sync(kFullMask, even ? pairs[1] : pairs[0], 1);
        if (row(tile, low) >= a.rows) continue;
        const int at = column + (even ? 2 * p : 8 + 2 * (p - 1));
        *reinterpret_cast<uint2*>(a.out + row(tile, low) * a.width + at) =
            even ? make_uint2(pairs[0], other) : make_uint2(other, pairs[1]);
      }
    }
  }

  __device__ __forceinline__ void put_features() const {
    if (a.kind == FavorKind::kRelu) {
      each_sixteen([&](int direction, const float (&u)[kTiles][2][4]) {
        store(direction, u, [&](float value, int, int) { return (value < 0 ? 0 : value) + a.eps; });
      });
      return;
    }
    float shift[kTiles][2] = {};
    if (a.maximum == FavorMaximum::kToken) peaks(shift);
#pragma unroll
    for (int i = 0; i < kTiles * 2; i++) {
      const int tile = i / 2, low = i % 2;
      if (a.has_peaks() && row(tile, low) < a.rows) shift[tile][low] = a.peak_of(row(tile, low));
      shift[tile][low] += norm[tile][low];
    }
    const float ratio = 1.0f / sqrtf(static_cast<float>(a.width));
    each_sixteen([&](int direction, const float (&u)[kTiles][2][4]) {
      const auto put = [&](int column, float sign) {
        store(column, u, [&](float value, int tile, int low) {
          return fmaf(ratio, __expf(sign * value - shift[tile][low]), ratio * a.eps);
        });
      };
      put(direction, 1.0f);
      if (a.kind == FavorKind::kHyperbolic) put(a.directions + direction, -1.0f);
    });
  }
};

// The directions as right operands: 8 of them x 16 values, a part after the other. Four values a thread, many loads of
// them under way.
__device__ __forceinline__ void put_fragments(const Favor<bfloat16>& a, char* to) {
  constexpr int kAhead = 8, kThreads = kWarps * kWarp;
  const int fours = a.size / 4, steps = a.size / 16, count = a.directions * fours;
  const auto* const from = reinterpret_cast<const float4*>(a.directions_of);
  for (int first = static_cast<int>(threadIdx.x); first < count; first += kAhead * kThreads) {
    float4 loaded[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; i++) {
      if (first + i * kThreads < count) loaded[i] = from[first + i * kThreads];
    }
#pragma unroll
    for (int i = 0; i < kAhead; i++) {
      const int at = first + i * kThreads, n = at / fours, k = at % fours * 4;
      if (at >= count) break;
      float rest[4] = {loaded[i].x, loaded[i].y, loaded[i].z, loaded[i].w};
      char* place = to + (n / 8 * steps + k / 16) * kParts * kFragmentBytes + n % 8 * 32 + k % 8 * 4 + k % 16 / 8 * 4;
#pragma unroll
      for (int part = 0; part < kParts; part++) {
#pragma unroll
        for (int pair = 0; pair < 2; pair++) {
          const float low = leading_part(rest[pair * 2]), high = leading_part(rest[pair * 2 + 1]);
          *reinterpret_cast<uint32_t*>(place + part * kFragmentBytes + pair * 8) = pack_pair<bfloat16>(low, high);
          rest[pair * 2] = rest_of(rest[pair * 2], low);
          rest[pair * 2 + 1] = rest_of(rest[pair * 2 + 1], high);
        }
      }
    }
  }
}

template <int kSteps, bool peaks_only>
__global__ void __launch_bounds__(kWarps* kWarp, kSteps == 4 ? 2 : 1)
    multiply(const __grid_constant__ Favor<bfloat16> a) {
  char* const fragments = dynamic_shared<char>();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  wait_for_inputs();
  let_next_begin();
  put_fragments(a, fragments);
  __syncthreads();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kWarps * kRows;
  for (int64_t first = (static_cast<int64_t>(blockIdx.x) * kWarps + warp) * kRows; first < a.rows; first += step) {
    Product<kSteps> product{a, fragments, lane, lane / 4, lane % 4, first};
    product.load();
    if constexpr (peaks_only) {
      float peaks[kTiles][2];
      product.peaks(peaks);
#pragma unroll
      for (int i = 0; i < kTiles * 2; i++) {
        const int64_t row = product.row(i / 2, i % 2);
        if (product.p == 0 && row < a.rows) a.peak_of(row) = peaks[i / 2][i % 2];
      }
    } else {
      product.put_features();
    }
  }
}

template <bool peaks_only>
void start(const Favor<bfloat16>& a, Cuda& cuda) {
  const size_t shared = static_cast<size_t>(a.directions / 8 * (a.size / 16) * kParts * kFragmentBytes);
  const int64_t tiles = ceil_div(a.rows, kWarps * kRows);
  const int64_t at_once =
      std::clamp<int64_t>(cuda.properties.shared_memory / static_cast<int64_t>(shared + 1024), 1, 2);
  const auto blocks = static_cast<unsigned>(std::min(tiles, at_once * cuda.properties.multiprocessors));
  const auto kernel = a.size <= 64 ? multiply<4, peaks_only> : multiply<8, peaks_only>;
  launch_early(cuda, kernel, blocks, kWarps * kWarp, shared, a);
}

}  // namespace

void find_peaks_of_product(const Favor<bfloat16>& favor, Cuda& cuda) {
  if (!find_peaks_on_hopper(favor, cuda)) start<true>(favor, cuda);
}

void make_features_of_product(const Favor<bfloat16>& favor, Cuda& cuda) {
  if (!make_features_on_hopper(favor, cuda)) start<false>(favor, cuda);
}

}  // namespace linattn::cuda::favor
