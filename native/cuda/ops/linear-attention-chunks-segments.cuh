// The states that segments of a row start from: the end of one segment is that of a scan from zero, plus the end of the
// one before it times the segment's transition.
#pragma once
#include "cuda/ops/linear-attention-chunks.cuh"

namespace linattn::cuda::chunks {

constexpr int kJoinedRows = 8;  // state rows of a block
constexpr int kJoinParts = 4;   // threads of a channel, which take as many rows each
constexpr int kRowsOfPart = kJoinedRows / kJoinParts;

// Each thread multiplies with a part of the transition's rows and then has the sums of some state rows.
template <int K, LinearRule rule, bool channels>
__global__ __launch_bounds__(K* kJoinParts) void join_segments_kernel(Call call) {
  __shared__ float before[kJoinedRows][K];
  __shared__ float sums[rule == LinearRule::kAdditive ? 1 : kJoinParts][kJoinedRows][K];
  constexpr RecordLayout layout = record_layout(rule, channels, K);
  const int n = call.sizes.single_rows + static_cast<int>(blockIdx.z), state_head = static_cast<int>(blockIdx.y);
  const int channel = static_cast<int>(threadIdx.x) % K, part = static_cast<int>(threadIdx.x) / K;
  const int head = state_head * call.sizes.G, first_row = part * kRowsOfPart;
  const Row row = row_of(call, n);
  const int begin = max(0, call.first_slot - row.slot), end = min(row.chunks, call.end_slot - row.slot);
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * kJoinedRows + first_row) * K + channel;
  const auto rows_of = [&](int segment) {
    return call.ends + call.segment_index(n, state_head, segment) * call.sizes.V * K + at;
  };
  if (begin >= end || segment_of(call, begin, end, 0).last) return;
  float state[kRowsOfPart];
#pragma unroll
  for (int r = 0; r < kRowsOfPart; r++) state[r] = rows_of(0)[r * K];
  for (int i = 1;; i++) {
    const Segment segment = segment_of(call, begin, end, i);
    if (segment.last) return;
    float* rows = rows_of(i);
    float local[kRowsOfPart];
#pragma unroll
    for (int r = 0; r < kRowsOfPart; r++) local[r] = rows[r * K];
    if constexpr (rule == LinearRule::kAdditive) {
      float decay = 1.0f;
      if constexpr (channels) {
#pragma unroll 8
        for (int c = segment.first; c < segment.end; c++) {
          const char* record = call.record(row.slot + c, head, layout.bytes());
          decay *= reinterpret_cast<const float*>(record + layout.gate())[channel];
        }
      } else {
        decay = call.transitions[call.segment_index(n, state_head, i)];
      }
#pragma unroll
      for (int r = 0; r < kRowsOfPart; r++) state[r] = state[r] * decay + local[r];
    } else {
      constexpr int kTaken = K / kJoinParts;
      const float* transition =
          call.transitions + (call.segment_index(n, state_head, i) * K + part * kTaken) * K + channel;
      float taken[kTaken];
#pragma unroll
      for (int j = 0; j < kTaken; j++) taken[j] = transition[j * K];
#pragma unroll
      for (int r = 0; r < kRowsOfPart; r++) before[first_row + r][channel] = state[r];
      __syncthreads();
#pragma unroll
      for (int r = 0; r < kJoinedRows; r++) {
        float sum = 0.0f;
#pragma unroll
        for (int j = 0; j < kTaken; j += 4) {
          const float4 four = *reinterpret_cast<const float4*>(&before[r][part * kTaken + j]);
          sum += four.x * taken[j] + four.y * taken[j + 1] + four.z * taken[j + 2] + four.w * taken[j + 3];
        }
        sums[part][r][channel] = sum;
      }
      __syncthreads();
#pragma unroll
      for (int r = 0; r < kRowsOfPart; r++) {
        state[r] = local[r];
#pragma unroll
        for (int of = 0; of < kJoinParts; of++) state[r] += sums[of][first_row + r][channel];
      }
    }
#pragma unroll
    for (int r = 0; r < kRowsOfPart; r++) rows[r * K] = state[r];
  }
}

template <int K, LinearRule rule, bool channels>
void join_segments(const Call& call, Cuda& cuda) {
  const LinearSizes& x = call.sizes;
  const dim3 grid(static_cast<unsigned>(x.V / kJoinedRows), static_cast<unsigned>(x.H),
                  static_cast<unsigned>(x.rows - x.single_rows));
  launch(cuda, join_segments_kernel<K, rule, channels>, grid, dim3(K * kJoinParts), 0, call);
}

}  // namespace linattn::cuda::chunks
