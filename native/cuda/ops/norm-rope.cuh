// A head of queries or keys by a warp: its RMS norm, then its rotation. A lane has a piece, and turns it with the lane
// that has the other half of its pairs.
#pragma once
#include "cuda/ops/norm-rope.h"
#include "cuda/ops/rms-norm.cuh"
#include "cuda/ops/rope.cuh"

namespace linattn::cuda {

constexpr int kMostTurnWidth = 8 * kWarp;

// Both as kernel arguments.
template <class T>
struct HeadTurn {
  RmsNormGroups<T> norm;
  StridedRows<T> out;
};

template <class T>
HeadTurn<T> head_turn(const NormedTurn& one) {
  HeadTurn<T> turn{rms_norm_groups<T>(one.norm), StridedRows<T>(one.rope.out)};
  turn.norm.groups.team = kWarp;  // lanes without a piece add nothing
  return turn;
}

// Whether norm and rotation of both are what turn_head() does, and read and write no memory of one another.
bool turns_heads(const NormedTurn& queries, const NormedTurn& keys);

// Head `head` of a token, as the lane's group.
template <class T>
__device__ __forceinline__ OwnGroup head_group(const HeadTurn<T>& turn, int token, int head) {
  OwnGroup own;
  own.row = token;
  own.in_row = head;
  own.column = static_cast<int64_t>(head) * turn.norm.groups.size;
  own.place = threadIdx.x % kWarp;
  own.pieces = turn.norm.groups.pieces;
  return own;
}

template <class T>
__device__ __forceinline__ Pack<T, kPiece<T>> norm_head(const HeadTurn<T>& turn, const OwnGroup& own) {
  Pack<T, kPiece<T>> normed{};
  normalise<1, true, NormParts::kNone>(turn.norm, own, nullptr,
                                       [&](int, const Pack<T, kPiece<T>>& out, int) { normed = out; });
  return normed;
}

// The lane's piece of a normed head, turned by the angles of its token.
template <class T>
__device__ __forceinline__ Pack<T, kPiece<T>> turn_head(const Pack<T, kPiece<T>>& normed, int pairs,
                                                        const float* cosine, const float* sine) {
  constexpr int N = kPiece<T>;
  const int lane = threadIdx.x % kWarp, first = lane * N, lanes = pairs / N;  // of one half
  const bool low = first < pairs, turned = first < 2 * pairs;
  uint32_t words[N / 2];
  Pack<T, N> other;
  memcpy(words, normed.value, sizeof(words));
#pragma unroll
  for (uint32_t& word : words) word = __shfl_sync(kFullMask, word, (low ? lane + lanes : lane - lanes) % kWarp);
  memcpy(other.value, words, sizeof(words));
  Pack<T, N> out = normed;
  if (turned) {
    const int pair = low ? first : first - pairs;
#pragma unroll
    for (int i = 0; i < N; i++) {
      const T own_value = normed.value[i], other_value = other.value[i];
      float one = as_float(low ? own_value : other_value), two = as_float(low ? other_value : own_value);
      turn_pair(one, two, cosine[pair + i], sine[pair + i]);
      out.value[i] = from_float<T>(low ? one : two);
    }
  }
  return out;
}

template <class T>
__device__ __forceinline__ void store_head(const HeadTurn<T>& turn, const OwnGroup& own,
                                           const Pack<T, kPiece<T>>& normed, const Pack<T, kPiece<T>>& turned) {
  constexpr int N = kPiece<T>;
  if (own.place >= own.pieces) return;
  *reinterpret_cast<Pack<T, N>*>(turn.norm.out.at(own.row, own.column) + own.place * N) = normed;
  *reinterpret_cast<Pack<T, N>*>(turn.out.at(own.row, own.column) + own.place * N) = turned;
}

}  // namespace linattn::cuda
