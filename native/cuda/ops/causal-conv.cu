// The short convolution before a linear attention layer. A thread makes a run of tokens of one sequence for a few
// channels, with their window in registers where the kernel is short. The thread of a sequence's first tokens reads its
// state, and alone writes it, afterwards: the first run holds every token that sees the state.
#include <algorithm>
#include <bit>

#include "cuda/device/activate.cuh"
#include "cuda/device/prefetch.cuh"
#include "cuda/ops/causal-conv.cuh"

namespace linattn::cuda {
namespace {

constexpr int kMostThreads = 128;
constexpr int kLeastRun = 8, kMostRun = 64;  // tokens
constexpr int kAhead = 8;                    // tokens whose loads are under way at once
constexpr int kTogether = 4;                 // tokens whose norms are summed at once

// Tokens [from, to) of sequence n, which has [begin, end).
struct Run {
  int n, begin, end, from, to;
};

// Sequence n has its runs at the blocks from offsets[n] / run + n on: as many blocks as it can need.
template <class T>
__device__ __forceinline__ Run run_of_block(const Conv<T>& conv, int block) {
  const int32_t* const offsets = conv.sequences.offsets;
  int n = block, first = 0;
  if (conv.run > 0) {
    int high = conv.sequences.rows;
    n = 0;
    while (n + 1 < high) {
      const int middle = (n + high) / 2;
      if (offsets[middle] / conv.run + middle <= block) {
        n = middle;
      } else {
        high = middle;
      }
    }
    first = block - offsets[n] / conv.run - n;
  }
  const int begin = offsets[n], end = offsets[n + 1];
  if (begin < 0 || end < begin || end > conv.sequences.tokens || first < 0) {
    if (threadIdx.x == 0)
      report(conv.fault, FaultKind::kOffsets, FaultName::kRows, n, end, begin, conv.sequences.tokens);
    return {n, 0, 0, 1, 0};
  }
  if (conv.run == 0) return {n, begin, end, begin, end};
  const int64_t from = begin + static_cast<int64_t>(first) * conv.run;
  if (first > 0 && from >= end) return {n, begin, end, 1, 0};
  return {n, begin, end, static_cast<int>(from), static_cast<int>(min(from + conv.run, static_cast<int64_t>(end)))};
}

// kTaps 0: any number of them, and every input is read again for each.
template <class T, int kTaps, int kWidth>
__global__ void __launch_bounds__(kMostThreads) convolve(Conv<T> conv) {
  const int block = static_cast<int>(blockIdx.x / static_cast<unsigned>(conv.channel_blocks));
  const int channel_block = static_cast<int>(blockIdx.x % static_cast<unsigned>(conv.channel_blocks));
  const int64_t channel = (static_cast<int64_t>(channel_block) * blockDim.x + threadIdx.x) * kWidth;
  if (begins_first() && channel < conv.channels) prefetch(conv.weight + channel * conv.taps);
  wait_for_inputs();
  if (channel >= conv.channels) return;
  const Run run = run_of_block(conv, block);
  if (run.from > run.to) return;
  const int past = (kTaps > 0 ? kTaps : conv.taps) - 1;
  const bool first = run.from == run.begin;
  const float* const before =
      first ? conv.window(FaultName::kReadSlots, conv.sequences.read_slots, run.n, channel) : nullptr;
  const auto load_token = [&](int t, float (&to)[kWidth]) { load(conv.x.at(t, channel), to); };
  // Input t of the sequence, which may lie before its first token.
  const auto load_input = [&](int t, float (&to)[kWidth]) {
    if (t >= run.begin) return load_token(t, to);
#pragma unroll
    for (int c = 0; c < kWidth; c++) to[c] = before ? before[c * past + t - run.begin + past] : 0.0f;
  };
  float* const after =
      first ? conv.window(FaultName::kWriteSlots, conv.sequences.write_slots, run.n, channel) : nullptr;
  const bool normed = channel < conv.norm_channels;  // all lanes of a warp alike
  // What the sums of kMany tokens from t on become.
  const auto put = [&]<int kMany>(int f, int t, float (&totals)[kMany][kWidth]) {
    if (conv.silu) {
#pragma unroll
      for (auto& total : totals) {
#pragma unroll
        for (float& one : total) one = silu_as<T>(one);
      }
    }
    if (normed) {
      float squares[kMany] = {};
#pragma unroll
      for (int i = 0; i < kMany; i++) {
#pragma unroll
        for (const float one : totals[i]) squares[i] = fmaf(one, one, squares[i]);
      }
      for (int apart = conv.norm_width / kWidth / 2; apart > 0; apart /= 2) {
#pragma unroll
        for (float& one : squares) one += __shfl_xor_sync(kFullMask, one, apart);
      }
#pragma unroll
      for (int i = 0; i < kMany; i++) {
        const float factor = unit_scale<T>(squares[i], conv.norm_eps);
#pragma unroll
        for (float& one : totals[i]) one *= factor;
      }
    }
#pragma unroll
    for (int i = 0; i < kMany; i++) {
      store(conv.out.at(t + i, f * static_cast<int64_t>(conv.channels) + channel), totals[i]);
    }
  };

  if constexpr (kTaps > 0) {
    constexpr int kPast = kTaps - 1;
    float recent[kTaps][kWidth];
    for (int f = 0; f < conv.filters; f++) {
      const int64_t own = f * static_cast<int64_t>(conv.channels) + channel;
      float weight[kWidth * kTaps], bias[kWidth] = {};
      if (conv.bias) load(conv.bias + own, bias);
#pragma unroll
      for (int w = 0; w < kTaps; w++) {
        float part[kWidth];
        load(conv.weight + own * kTaps + w * kWidth, part);
#pragma unroll
        for (int c = 0; c < kWidth; c++) weight[w * kWidth + c] = part[c];
      }
      if (before) {
#pragma unroll
        for (int w = 0; w < kPast; w++) {
          float part[kWidth];
          load(before + w * kWidth, part);
#pragma unroll
          for (int c = 0; c < kWidth; c++) {
            const int at = w * kWidth + c;
            recent[at % kPast][at / kPast] = part[c];
          }
        }
      } else {
#pragma unroll
        for (int w = 0; w < kPast; w++) load_input(run.from - kPast + w, recent[w]);
      }
      const auto sum = [&](const Pack<T, kWidth>& input, float (&total)[kWidth]) {
#pragma unroll
        for (int c = 0; c < kWidth; c++) {
          recent[kPast][c] = as_float(input.value[c]);
          total[c] = bias[c];
#pragma unroll
          for (int w = 0; w < kTaps; w++) total[c] = fmaf(weight[c * kTaps + w], recent[w][c], total[c]);
#pragma unroll
          for (int w = 0; w < kPast; w++) recent[w][c] = recent[w + 1][c];
        }
      };
      const auto input_at = [&](int t) { return *reinterpret_cast<const Pack<T, kWidth>*>(conv.x.at(t, channel)); };
      int t = run.from;
      for (; t + kAhead <= run.to; t += kAhead) {
        Pack<T, kWidth> inputs[kAhead];
#pragma unroll
        for (int i = 0; i < kAhead; i++) inputs[i] = input_at(t + i);
#pragma unroll
        for (int first = 0; first < kAhead; first += kTogether) {
          float totals[kTogether][kWidth];
#pragma unroll
          for (int i = 0; i < kTogether; i++) sum(inputs[first + i], totals[i]);
          put(f, t + first, totals);
        }
      }
      for (; t < run.to; t++) {
        float total[1][kWidth];
        sum(input_at(t), total[0]);
        put(f, t, total);
      }
    }
    if (!after) return;
    if (run.to < run.end) {
#pragma unroll
      for (int w = 0; w < kPast; w++) load_token(run.end - kPast + w, recent[w]);
    }
#pragma unroll
    for (int w = 0; w < kPast; w++) {
      float part[kWidth];
#pragma unroll
      for (int c = 0; c < kWidth; c++) part[c] = recent[(w * kWidth + c) % kPast][(w * kWidth + c) / kPast];
      store(after + w * kWidth, part);
    }
  } else {
    for (int f = 0; f < conv.filters; f++) {
      const int64_t own = f * static_cast<int64_t>(conv.channels) + channel;
      float bias[kWidth] = {};
      if (conv.bias) load(conv.bias + own, bias);
      for (int t = run.from; t < run.to; t++) {
        float totals[1][kWidth], input[kWidth];
        float (&total)[kWidth] = totals[0];
#pragma unroll
        for (int c = 0; c < kWidth; c++) total[c] = bias[c];
        for (int w = 0; w <= past; w++) {
          load_input(t - past + w, input);
#pragma unroll
          for (int c = 0; c < kWidth; c++) {
            total[c] = fmaf(conv.weight[(own + c) * (past + 1) + w], input[c], total[c]);
          }
        }
        put(f, t, totals);
      }
    }
    if (!after) return;
    // Upwards: where both are the same window, what is read lies no lower than what is written.
    for (int w = 0; w < past; w++) {
      float input[kWidth];
      load_input(run.end - past + w, input);
#pragma unroll
      for (int c = 0; c < kWidth; c++) after[c * past + w] = input[c];
    }
  }
}

template <class T, int kWidth>
auto kernel_of(int taps) -> void (*)(Conv<T>) {
  if constexpr (kWidth > 1) {
    if (taps == 2) return convolve<T, 2, kWidth>;
    if (taps == 3) return convolve<T, 3, kWidth>;
    if (taps == 4) return convolve<T, 4, kWidth>;
  }
  return convolve<T, 0, kWidth>;
}

// Tokens of a run: as many as leave a thread for every place of the device, and none but the first sees the state.
int run_length(const CausalConv& op, const Cuda& cuda, int64_t threads_across) {
  const int64_t wanted = static_cast<int64_t>(cuda.properties.multiprocessors) * 1536;
  int64_t run = kLeastRun;
  while (run < kMostRun && ceil_div(op.sequences.tokens, 2 * run) * threads_across >= wanted) run *= 2;
  return static_cast<int>(std::max(run, op.weight.shape[1] - 1));
}

}  // namespace

void run(const L2Norm& op, Cuda& cuda);

void run(const CausalConv& op, Cuda& cuda) {
  check_sequences(cuda, op.sequences, op.state ? op.state.shape[0] : -1);
  const auto channels = static_cast<int>(op.x.shape[1]), taps = static_cast<int>(op.weight.shape[1]);
  if (channels == 0) return;
  bool norms = false;  // by the same kernel
  for_float(op.x.dtype, [&](auto t) {
    using T = decltype(t);
    constexpr int kWidth = kConvWidth;
    const bool wide = conv_aligned(op);
    norms = wide && std::has_single_bit(static_cast<uint64_t>(op.norm_width)) && op.norm_width >= kWidth &&
            op.norm_width <= kWarp * kWidth && op.norm_channels % (kWarp * kWidth) == 0;
    const int64_t across = ceil_div(channels, wide ? kWidth : 1);
    const int64_t threads = std::min<int64_t>(ceil_div(across, kWarp) * kWarp, kMostThreads);
    const int length = run_length(op, cuda, across);
    const bool whole = op.sequences.max_tokens <= length;
    const int64_t runs = op.sequences.rows + (whole || op.sequences.rows == 0 ? 0 : op.sequences.tokens / length);
    Conv<T> conv = conv_of<T>(op, cuda);
    conv.run = whole ? 0 : length;
    conv.channel_blocks = static_cast<int>(ceil_div(across, threads));
    if (!norms) conv.norm_channels = 0;
    launch_early(cuda, wide ? kernel_of<T, kWidth>(taps) : kernel_of<T, 1>(taps),
                 static_cast<unsigned>(runs * conv.channel_blocks), static_cast<unsigned>(threads), 0, conv);
  });
  if (op.norm_channels > 0 && !norms) run(op.norm(), cuda);
}

}  // namespace linattn::cuda
