// Rotary position embedding, a block a token: the cosines and sines of its position once, for all heads.
#include <algorithm>

#include "cuda/device/elementwise.cuh"
#include "cuda/ops/rope.cuh"

namespace linattn::cuda {
namespace {

constexpr int kMostThreads = 256;

template <class T>
struct RopeTokens {
  StridedRows<const T> x;
  StridedRows<T> out;
  const float* frequencies;
  int heads, width, pairs;
  SequencesView sequences;
  Fault* fault;
};

// kWidth pairs at a time, or values that are copied: it divides both where it is not 1.
template <class T, int kWidth, bool interleaved>
__global__ void __launch_bounds__(kMostThreads) turn_tokens(RopeTokens<T> a) {
  float* const cosine = dynamic_shared<float>();
  float* const sine = cosine + a.pairs;
  const int token = static_cast<int>(blockIdx.x), threads = static_cast<int>(blockDim.x);
  wait_for_inputs();
  if (token == 0) check_offsets(a.sequences, a.fault);
  const int position = position_of(a.sequences, token);
  for (int i = static_cast<int>(threadIdx.x); i < a.pairs; i += threads) {
    turn_of(position, a.frequencies[i], cosine[i], sine[i]);
  }
  __syncthreads();
  const int turned = a.pairs / kWidth, pieces = turned + (a.width - 2 * a.pairs) / kWidth;
  const T* const x = a.x.at(token, 0);
  T* const out = a.out.at(token, 0);
  for (int piece = static_cast<int>(threadIdx.x); piece < a.heads * pieces; piece += threads) {
    const int head = piece / pieces, i = piece - head * pieces;
    if (i >= turned) {
      const int d = head * a.width + 2 * a.pairs + (i - turned) * kWidth;
      *reinterpret_cast<Pack<T, kWidth>*>(out + d) = *reinterpret_cast<const Pack<T, kWidth>*>(x + d);
      continue;
    }
    const int pair = i * kWidth;
    const int low = head * a.width + (interleaved ? 2 * pair : pair), high = low + (interleaved ? kWidth : a.pairs);
    float values[2 * kWidth], half[kWidth];
    load(x + low, half);
#pragma unroll
    for (int j = 0; j < kWidth; j++) values[j] = half[j];
    load(x + high, half);
#pragma unroll
    for (int j = 0; j < kWidth; j++) values[kWidth + j] = half[j];
    float c[kWidth], s[kWidth];
    load(cosine + pair, c);
    load(sine + pair, s);
    const auto turn = [&](int j, float& first, float& second) { turn_pair(first, second, c[j], s[j]); };
#pragma unroll
    for (int j = 0; j < kWidth; j++) {
      if constexpr (interleaved) {
        turn(j, values[2 * j], values[2 * j + 1]);
      } else {
        turn(j, values[j], values[kWidth + j]);
      }
    }
#pragma unroll
    for (int j = 0; j < kWidth; j++) half[j] = values[j];
    store(out + low, half);
#pragma unroll
    for (int j = 0; j < kWidth; j++) half[j] = values[kWidth + j];
    store(out + high, half);
  }
}

}  // namespace

void run(const Rope& op, Cuda& cuda) {
  if (op.x.size() == 0) return;
  const auto heads = static_cast<int>(op.x.shape[1]), width = static_cast<int>(op.x.shape[2]);
  const auto pairs = static_cast<int>(op.inverse_frequencies.shape[0]);
  for_float(op.x.dtype, [&](auto t) {
    using T = decltype(t);
    constexpr int kWidth = static_cast<int>(16 / sizeof(T));
    const bool wide = pairs % kWidth == 0 && width % kWidth == 0 && aligned(op.x, kWidth) && aligned(op.out, kWidth);
    const int pieces = heads * (width - pairs) / (wide ? kWidth : 1);
    const auto threads = static_cast<unsigned>(std::min<int64_t>(ceil_div(pieces, kWarp) * kWarp, kMostThreads));
    const RopeTokens<T> arguments{StridedRows<const T>(op.x),
                                  StridedRows<T>(op.out),
                                  op.inverse_frequencies.as<const float>(),
                                  heads,
                                  width,
                                  pairs,
                                  view_of(op.sequences),
                                  cuda.fault()};
    const bool interleaved = op.pairing == RopePairing::kInterleaved;
    const auto kernel = wide ? (interleaved ? turn_tokens<T, kWidth, true> : turn_tokens<T, kWidth, false>)
                             : (interleaved ? turn_tokens<T, 1, true> : turn_tokens<T, 1, false>);
    launch_early(cuda, kernel, static_cast<unsigned>(op.x.shape[0]), threads,
                 2 * sizeof(float) * static_cast<size_t>(pairs), arguments);
  });
}

}  // namespace linattn::cuda
