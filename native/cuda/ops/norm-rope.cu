// A block a token, a warp a head.
#include "cuda/fusions.h"
#include "cuda/ops/norm-rope.cuh"

namespace linattn::cuda {
namespace {

constexpr int kMostHeads = 32;
constexpr int64_t kMostRows = 16;

template <class T>
struct HeadTurns {
  HeadTurn<T> queries, keys;
  int query_heads, pairs;
  const float* frequencies;
  SequencesView sequences;
  Fault* fault;
};

template <class T>
__global__ void __launch_bounds__(kMostHeads* kWarp, 1) norm_and_turn_heads(const __grid_constant__ HeadTurns<T> a) {
  __shared__ float cosine[kMostTurnWidth / 2], sine[kMostTurnWidth / 2];
  const int token = static_cast<int>(blockIdx.x), warp = threadIdx.x / kWarp;
  const bool of_query = warp < a.query_heads;
  const HeadTurn<T>& turn = of_query ? a.queries : a.keys;
  const OwnGroup own = head_group(turn, token, of_query ? warp : warp - a.query_heads);
  prefetch_weights<T, 1>(turn.norm, own);
  wait_for_inputs();
  if (token == 0) check_offsets(a.sequences, a.fault);
  const int position = position_of(a.sequences, token);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < a.pairs; i += static_cast<int>(blockDim.x)) {
    turn_of(position, a.frequencies[i], cosine[i], sine[i]);
  }
  const auto normed = norm_head(turn, own);
  __syncthreads();
  store_head(turn, own, normed, turn_head(normed, a.pairs, cosine, sine));
}

bool plain(const NormedTurn& one) {
  const auto& [norm, rope] = one;
  const int64_t width = norm.group_size;
  return !norm.gate && !norm.residual && norm.x.rank == 3 && width == norm.x.shape[2] && width % 8 == 0 &&
         width <= kMostTurnWidth && norm.out.data == rope.x.data && norm.out.contiguous() && rope.x.contiguous() &&
         rope.x.rank == 3 && rope.x.shape[1] == norm.x.shape[1] && rope.x.shape[2] == width &&
         rope.pairing == RopePairing::kHalf && aligned(rope.out, 8) && rope.inverse_frequencies.shape[0] % 8 == 0 &&
         dtype_bytes(rope.x.dtype) == 2 && rms_norm_groups<bfloat16>(norm).whole();
}

}  // namespace

bool turns_heads(const NormedTurn& queries, const NormedTurn& keys) {
  const Rope &rope = queries.rope, &other = keys.rope;
  return plain(queries) && plain(keys) && other.x.shape[0] == rope.x.shape[0] && rope.x.dtype == other.x.dtype &&
         rope.x.shape[2] == other.x.shape[2] && rope.inverse_frequencies.data == other.inverse_frequencies.data &&
         rope.sequences.offsets.data == other.sequences.offsets.data &&
         rope.sequences.positions.data == other.sequences.positions.data &&
         rope.sequences.rows == other.sequences.rows &&
         apart({queries.norm.out, keys.norm.out, rope.out, other.out}, {queries.norm.x, keys.norm.x}) &&
         // Warps write them in any order.
         apart({queries.norm.out}, {keys.norm.out, rope.out, other.out}) &&
         apart({keys.norm.out}, {rope.out, other.out}) && apart({rope.out}, {other.out});
}

bool norm_and_turn(const NormedTurn& queries, const NormedTurn& keys, Cuda& cuda) {
  const Rope &rope = queries.rope, &other = keys.rope;
  const int64_t rows = rope.x.shape[0], heads = rope.x.shape[1] + other.x.shape[1];
  if (rows == 0 || rows > kMostRows || heads > kMostHeads || !turns_heads(queries, keys)) return false;
  cuda.op = kOpIndex<Rope>;
  for_float(rope.x.dtype, [&](auto t) {
    using T = decltype(t);
    if constexpr (sizeof(T) == 2) {
      const HeadTurns<T> turns{head_turn<T>(queries),
                               head_turn<T>(keys),
                               static_cast<int>(rope.x.shape[1]),
                               static_cast<int>(rope.inverse_frequencies.shape[0]),
                               rope.inverse_frequencies.as<const float>(),
                               view_of(rope.sequences),
                               cuda.fault()};
      launch_early(cuda, norm_and_turn_heads<T>, static_cast<unsigned>(rows), static_cast<unsigned>(heads) * kWarp, 0,
                   turns);
    }
  });
  return true;
}

}  // namespace linattn::cuda
