// The states that segments of a row start from: the end of one segment is that of a scan from zero, plus the end of the
// one before it times the segment's transition. And a copy of the state that the row starts from.
#pragma once
#include "cuda/ops/linear-attention-chunks.cuh"

namespace linattn::cuda::chunks {

constexpr int kJoinedRows = 8;  // state rows of a block
constexpr int kJoinParts = 4;   // threads of a channel, which take as many rows each
constexpr int kRowsOfPart = kJoinedRows / kJoinParts;
constexpr int kJoinedAtOnce = 8;  // segments whose ends are under way at a time

// What a segment of the additive rule multiplies a channel of the state by.
template <int K, bool channels>
__device__ __forceinline__ float decay_of_segment(const Call& call, const Row& row, int n, int state_head, int channel,
                                                  int begin, int end, int i) {
  if constexpr (!channels) return call.transitions[call.segment_index(n, state_head, i)];
  constexpr RecordLayout layout = record_layout(LinearRule::kAdditive, true, K);
  const Segment segment = segment_of(call, begin, end, i);
  float decay = 1.0f;
#pragma unroll 8
  for (int c = segment.first; c < segment.end; c++) {
    const char* record = call.record(row.slot + c, state_head * call.sizes.G, layout.bytes());
    decay *= reinterpret_cast<const float*>(record + layout.gate())[channel];
  }
  return decay;
}

// Each thread multiplies with a part of the transition's rows and then has the sums of some state rows.
template <int K, LinearRule rule, bool channels>
__global__ __launch_bounds__(K* kJoinParts) void join_segments_kernel(Call call) {
  __shared__ float before[kJoinedRows][K];
  __shared__ float sums[rule == LinearRule::kAdditive ? 1 : kJoinParts][kJoinedRows][K];
  const LinearSizes& x = call.sizes;
  const int n = x.single_rows + static_cast<int>(blockIdx.z), state_head = static_cast<int>(blockIdx.y);
  const int channel = static_cast<int>(threadIdx.x) % K, part = static_cast<int>(threadIdx.x) / K;
  const int first_row = part * kRowsOfPart;
  const Row row = row_of(call, n);
  const int begin = max(0, call.first_slot - row.slot), end = min(row.chunks, call.end_slot - row.slot);
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * kJoinedRows + first_row) * K + channel;
  const auto rows_of = [&](int segment) {
    return call.ends + call.segment_index(n, state_head, segment) * x.V * K + at;
  };
  const int slot = begin == 0 && call.start
                       ? checked_slot(call.fault, FaultName::kReadSlots, call.sequences.read_slots, n, x.slots)
                       : -1;
  if (slot >= 0) {
    const float* from = call.state + slot * call.state_stride + int64_t{state_head} * x.V * K + at;
    float* to = call.start + (int64_t{n - x.single_rows} * x.H + state_head) * x.V * K + at;
#pragma unroll
    for (int r = 0; r < kRowsOfPart; r++) to[r * K] = from[r * K];
  }
  if (begin >= end) return;
  const int last = last_segment(call, begin, end);
  if (last == 0) return;
  float state[kRowsOfPart];
#pragma unroll
  for (int r = 0; r < kRowsOfPart; r++) state[r] = rows_of(0)[r * K];
  if constexpr (rule == LinearRule::kAdditive) {
    for (int from = 1; from < last; from += kJoinedAtOnce) {
      float local[kJoinedAtOnce][kRowsOfPart], decay[kJoinedAtOnce];
#pragma unroll
      for (int i = 0; i < kJoinedAtOnce; i++) {
        if (from + i >= last) break;
        decay[i] = decay_of_segment<K, channels>(call, row, n, state_head, channel, begin, end, from + i);
#pragma unroll
        for (int r = 0; r < kRowsOfPart; r++) local[i][r] = rows_of(from + i)[r * K];
      }
#pragma unroll
      for (int i = 0; i < kJoinedAtOnce; i++) {
        if (from + i >= last) break;
#pragma unroll
        for (int r = 0; r < kRowsOfPart; r++) {
          state[r] = state[r] * decay[i] + local[i][r];
          rows_of(from + i)[r * K] = state[r];
        }
      }
    }
  } else {
    for (int i = 1; i < last; i++) {
      float* rows = rows_of(i);
      float local[kRowsOfPart];
#pragma unroll
      for (int r = 0; r < kRowsOfPart; r++) local[r] = rows[r * K];
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
        rows[r * K] = state[r];
      }
    }
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
