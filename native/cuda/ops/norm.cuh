// Groups of neighbours of a row that are normalised together, each by a team of threads, a piece of 16 bytes at a time:
// a part of a warp, or a whole block. The threads keep a group's values in registers where these suffice. Which thread
// adds what depends on the size of a group and the dtype alone, so a group gets the same bits in any company.
#pragma once
#include <algorithm>
#include <bit>
#include <type_traits>

#include "core/tensor.h"
#include "cuda/device/elementwise.cuh"
#include "cuda/device/warp.cuh"

namespace linattn::cuda {

constexpr int kNormThreads = 512;  // at most, of a block
constexpr int kSmallTeams = 128;   // threads of a block that has several teams

template <class T>
constexpr int kPiece = static_cast<int>(16 / sizeof(T));

struct NormGroups {
  int64_t count = 0;
  int per_row = 0, size = 0, pieces = 0;
  int team = 1, threads = kSmallTeams;  // of a group, of a block
  int held = 0;                         // pieces that a thread holds at most; 0: as many as there are, read anew

  NormGroups(int64_t rows, int64_t width, int64_t group_size, int piece)
      : per_row(static_cast<int>(width / group_size)),
        size(static_cast<int>(group_size)),
        pieces(static_cast<int>(ceil_div(group_size, piece))) {
    count = rows * per_row;
    held = pieces <= kNormThreads ? 1 : pieces <= 2 * kNormThreads ? 2 : pieces <= 4 * kNormThreads ? 4 : 0;
    const int needed = held == 0 ? kNormThreads : static_cast<int>(ceil_div(pieces, held));
    if (needed <= kWarp) {
      team = static_cast<int>(std::bit_ceil(static_cast<unsigned>(needed)));
    } else {
      team = threads = static_cast<int>(ceil_div(needed, kWarp)) * kWarp;
    }
  }

  unsigned blocks() const { return static_cast<unsigned>(ceil_div(count, threads / team)); }
};

// The group of a thread, and the thread's place in the team. A thread without a group has no pieces.
struct OwnGroup {
  int64_t row = 0, column = 0;  // of its first value
  int in_row = 0, place = 0, pieces = 0;

  OwnGroup() = default;
  __device__ __forceinline__ explicit OwnGroup(const NormGroups& groups) {
    const int teams = groups.threads / groups.team;
    const unsigned group = blockIdx.x * static_cast<unsigned>(teams) + threadIdx.x / groups.team;
    place = threadIdx.x % groups.team;
    if (group >= groups.count) return;
    row = group / static_cast<unsigned>(groups.per_row);
    in_row = static_cast<int>(group % static_cast<unsigned>(groups.per_row));
    column = static_cast<int64_t>(in_row) * groups.size;
    pieces = groups.pieces;
  }
};

// body(piece, held) for the pieces of this thread; `held` counts them where kHeld bounds how many there are.
template <int kHeld, class Body>
__device__ __forceinline__ void for_own_pieces(const OwnGroup& own, int team, Body&& body) {
  if constexpr (kHeld > 0) {
#pragma unroll
    for (int held = 0; held < kHeld; held++) {
      const int piece = own.place + held * team;
      if (piece < own.pieces) body(piece, held);
    }
  } else {
    for (int piece = own.place; piece < own.pieces; piece += team) body(piece, 0);
  }
}

// Every thread of the team gets the sum. `shared`: kWarp floats.
__device__ __forceinline__ float team_sum(float x, int team, float* shared) {
  if (team > kWarp) return block_sum(x, shared);
  for (int offset = team / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kFullMask, x, offset);
  return x;
}

// The first `count` values of a piece, or all; those beyond are 0.
template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_piece(const T* from, int count, bool aligned) {
  if (aligned && count >= N) return *reinterpret_cast<const Pack<T, N>*>(from);
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; i++) pack.value[i] = i < count ? from[i] : T{};
  return pack;
}

template <int N, class T>
__device__ __forceinline__ void store_piece(T* to, const Pack<T, N>& pack, int count, bool aligned) {
  if (aligned && count >= N) {
    *reinterpret_cast<Pack<T, N>*>(to) = pack;
    return;
  }
#pragma unroll
  for (int i = 0; i < N; i++) {
    if (i < count) to[i] = pack.value[i];
  }
}

// Whether the pieces of every group can be loaded at once.
inline bool pieces_aligned(const NormGroups& groups, int piece, std::initializer_list<Tensor> tensors) {
  return (groups.per_row == 1 || groups.size % piece == 0) &&
         std::all_of(tensors.begin(), tensors.end(), [&](const Tensor& t) { return !t || aligned(t, piece); });
}

// body(std::integral_constant<int, held>).
template <class Body>
void with_held(const NormGroups& groups, Body&& body) {
  switch (groups.held) {
    case 1:
      return body(std::integral_constant<int, 1>{});
    case 2:
      return body(std::integral_constant<int, 2>{});
    case 4:
      return body(std::integral_constant<int, 4>{});
    default:
      return body(std::integral_constant<int, 0>{});
  }
}

}  // namespace linattn::cuda
