// A block a token, a warp a head: what a lane norms it turns, with the lane that has the other half of its pairs.
#include "cuda/fusions.h"
#include "cuda/ops/norm-rope.h"
#include "cuda/ops/rms-norm.cuh"
#include "cuda/ops/rope.cuh"

namespace linattn::cuda {
namespace {

constexpr int kMostWidth = 8 * kWarp;
constexpr int kMostHeads = 32;
constexpr int64_t kMostRows = 16;

template <class T>
struct HeadTurn {
  RmsNormGroups<T> norm;
  StridedRows<T> out;
};

template <class T>
struct HeadTurns {
  HeadTurn<T> queries, keys;
  int query_heads, width, pairs;
  const float* frequencies;
  SequencesView sequences;
  Fault* fault;
};

template <class T>
__global__ void __launch_bounds__(kMostHeads* kWarp, 1) norm_and_turn_heads(const __grid_constant__ HeadTurns<T> a) {
  constexpr int N = kPiece<T>;
  __shared__ float cosine[kMostWidth / 2], sine[kMostWidth / 2], sums[kWarp];
  const int token = static_cast<int>(blockIdx.x), lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const bool of_query = warp < a.query_heads;
  const HeadTurn<T>& turn = of_query ? a.queries : a.keys;
  RmsNormGroups<T> norm = turn.norm;
  norm.groups.team = kWarp;  // lanes without a piece add nothing
  OwnGroup own;
  own.row = token;
  own.in_row = of_query ? warp : warp - a.query_heads;
  own.column = static_cast<int64_t>(own.in_row) * a.width;
  own.place = lane;
  own.pieces = a.width / N;
  prefetch_weights<T, 1>(norm, own);
  wait_for_inputs();
  if (token == 0) check_offsets(a.sequences, a.fault);
  const int position = position_of(a.sequences, token);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < a.pairs; i += static_cast<int>(blockDim.x)) {
    turn_of(position, a.frequencies[i], cosine[i], sine[i]);
  }
  Pack<T, N> normed{};
  normalise<1, true, NormParts::kNone>(norm, own, sums, [&](int, const Pack<T, N>& out, int) { normed = out; });
  __syncthreads();

  const int first = lane * N, lanes = a.pairs / N;  // of one half
  const bool low = first < a.pairs, turned = first < 2 * a.pairs;
  uint32_t words[N / 2];
  Pack<T, N> other;
  memcpy(words, normed.value, sizeof(words));
#pragma unroll
  for (uint32_t& word : words) word = __shfl_sync(kFullMask, word, (low ? lane + lanes : lane - lanes) % kWarp);
  memcpy(other.value, words, sizeof(words));
  Pack<T, N> out = normed;
  if (turned) {
    const int pair = low ? first : first - a.pairs;
#pragma unroll
    for (int i = 0; i < N; i++) {
      const T own_value = normed.value[i], other_value = other.value[i];
      float one = as_float(low ? own_value : other_value), two = as_float(low ? other_value : own_value);
      turn_pair(one, two, cosine[pair + i], sine[pair + i]);
      out.value[i] = from_float<T>(low ? one : two);
    }
  }
  if (first >= a.width) return;
  *reinterpret_cast<Pack<T, N>*>(norm.out.at(token, own.column) + first) = normed;
  *reinterpret_cast<Pack<T, N>*>(turn.out.at(token, own.column) + first) = out;
}

bool plain(const NormedTurn& one) {
  const auto& [norm, rope] = one;
  const int64_t width = norm.group_size;
  return !norm.gate && !norm.residual && norm.x.rank == 3 && width == norm.x.shape[2] && width % 8 == 0 &&
         width <= kMostWidth && norm.out.data == rope.x.data && norm.out.contiguous() && rope.x.contiguous() &&
         rope.x.rank == 3 && rope.x.shape[1] == norm.x.shape[1] && rope.x.shape[2] == width &&
         rope.pairing == RopePairing::kHalf && aligned(rope.out, 8) && rope.inverse_frequencies.shape[0] % 8 == 0;
}

}  // namespace

bool norm_and_turn(const NormedTurn& queries, const NormedTurn& keys, Cuda& cuda) {
  const Rope &rope = queries.rope, &other = keys.rope;
  const int64_t rows = rope.x.shape[0];
  if (!plain(queries) || !plain(keys) || rows == 0 || rows > kMostRows || other.x.shape[0] != rows ||
      dtype_bytes(rope.x.dtype) != 2 || rope.x.dtype != other.x.dtype || rope.x.shape[2] != other.x.shape[2] ||
      rope.x.shape[1] + other.x.shape[1] > kMostHeads ||
      rope.inverse_frequencies.data != other.inverse_frequencies.data ||
      rope.sequences.offsets.data != other.sequences.offsets.data ||
      rope.sequences.positions.data != other.sequences.positions.data || rope.sequences.rows != other.sequences.rows ||
      !apart({queries.norm.out, keys.norm.out, rope.out, other.out}, {queries.norm.x, keys.norm.x})) {
    return false;
  }
  bool serves = false;
  cuda.op = kOpIndex<Rope>;
  for_float(rope.x.dtype, [&](auto t) {
    using T = decltype(t);
    if constexpr (sizeof(T) == 2) {
      const HeadTurns<T> turns{{rms_norm_groups<T>(queries.norm), StridedRows<T>(rope.out)},
                               {rms_norm_groups<T>(keys.norm), StridedRows<T>(other.out)},
                               static_cast<int>(rope.x.shape[1]),
                               static_cast<int>(rope.x.shape[2]),
                               static_cast<int>(rope.inverse_frequencies.shape[0]),
                               rope.inverse_frequencies.as<const float>(),
                               view_of(rope.sequences),
                               cuda.fault()};
      serves = turns.queries.norm.whole() && turns.keys.norm.whole();
      if (!serves) return;
      const auto threads = static_cast<unsigned>((rope.x.shape[1] + other.x.shape[1]) * kWarp);
      launch_early(cuda, norm_and_turn_heads<T>, static_cast<unsigned>(rows), threads, 0, turns);
    }
  });
  return serves;
}

}  // namespace linattn::cuda
