// Key sums z and z'q of the additive rule, from the records: z' of a chunk's end is linear in z of its start, so only a
// sum of K floats a chunk is taken one after the other.
#include "cuda/device/warp.cuh"
#include "cuda/ops/linear-attention-chunks-tiles.cuh"

namespace linattn::cuda::chunks {
namespace {

constexpr int kThreads = 128;
constexpr int kAhead = 8;       // chunks whose sums are under way at a time
constexpr int kTokenLanes = 8;  // lanes that share a token

struct SumsCall {
  Call call;
  RecordLayout layout;

  __device__ __forceinline__ float* of(int slot, int head) const {
    return call.chunk_sums + (static_cast<int64_t>(slot - call.first_slot) * call.sizes.Ho + head) * call.sizes.K;
  }
  __device__ __forceinline__ const float* gates(const char* record) const {
    return reinterpret_cast<const float*>(record + layout.gate());
  }
};

// k e^(G_end - G) over the tokens of a chunk. Blocks: slots x output heads.
template <bool channels>
__global__ void __launch_bounds__(kThreads) sum_keys(SumsCall a) {
  const Call& call = a.call;
  const int slot = call.first_slot + static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
  const SlotOwner owner = owner_of(call, slot);
  const Row row = row_of(call, owner.row);
  if (owner.chunk < 0 || owner.chunk >= row.chunks) return;
  const Chunk chunk = chunk_of(row, owner.chunk);
  const int K = call.sizes.K, pairs = K / 2, thread = static_cast<int>(threadIdx.x);
  const char* record = call.record(slot, head, a.layout.bytes());
  const float* late = a.gates(record) + kTokens + chunk.skip;
  const bfloat16* k = call.k + chunk.first * call.k_stride + k_head(call.sizes, head / call.sizes.G) * K;
  // Threads of one channel pair take every `groups`th token.
  const int groups = kThreads / pairs, group = thread / pairs, pair = thread % pairs;
  float2 sum = make_float2(0.0f, 0.0f);
  if (group < groups) {
#pragma unroll 8
    for (int t = group; t < chunk.count; t += groups) {
      uint32_t two;
      float by = 1.0f;
      if constexpr (channels) {
        const int at = tile_offset(t + chunk.skip, pair / 4) + pair % 4 * 4;
        two = *reinterpret_cast<const uint32_t*>(record + a.layout.tile(kWrite) + at);
      } else {
        two = *reinterpret_cast<const uint32_t*>(k + t * call.k_stride + 2 * pair);
        by = late[t];
      }
      sum = make_float2(fmaf(by, low_of(two), sum.x), fmaf(by, high_of(two), sum.y));
    }
  }
  __shared__ float2 shared[kThreads];
  shared[thread] = sum;
  __syncthreads();
  if (thread >= pairs) return;
  for (int other = 1; other < groups; other++) {
    const float2 more = shared[other * pairs + thread];
    sum = make_float2(sum.x + more.x, sum.y + more.y);
  }
  *reinterpret_cast<float2*>(a.of(slot, head) + 2 * thread) = sum;
}

// z before each chunk of a row, and where it is kept. Blocks: rows x output heads, a thread for each channel.
template <bool channels>
__global__ void sum_chunks(SumsCall a) {
  const Call& call = a.call;
  const LinearSizes& x = call.sizes;
  const int n = x.single_rows + static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
  const int channel = static_cast<int>(threadIdx.x), state_head = head / x.G;
  const Row row = row_of(call, n);
  const int first = max(0, call.first_slot - row.slot), end_chunk = min(row.chunks, call.end_slot - row.slot);
  const bool empty = row.chunks == 0 && row.slot >= call.first_slot && row.slot < call.end_slot;
  if (channel >= x.K || (first >= end_chunk && !empty)) return;
  const auto kept = [&](int slot) -> float& {
    return call.key_sum[slot * call.key_sum_stride + static_cast<int64_t>(state_head) * x.K + channel];
  };
  const bool keeps = call.key_sum != nullptr && head % x.G == 0;
  float z = 0.0f;
  if (first > 0) {
    z = call.carry_in[static_cast<int64_t>(head) * x.K + channel];
  } else if (call.key_sum) {
    const int slot = checked_slot(call.fault, FaultName::kReadSlots, call.sequences.read_slots, n, x.slots);
    const int64_t at = (int64_t{n - x.single_rows} * x.H + state_head) * x.K + channel;
    if (slot >= 0) z = call.start_sums ? call.start_sums[at] : kept(slot);
  }
  for (int from = first; from < end_chunk; from += kAhead) {
    float added[kAhead], decay[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; i++) {
      if (from + i >= end_chunk) break;
      const int slot = row.slot + from + i;
      added[i] = a.of(slot, head)[channel];
      decay[i] = a.gates(call.record(slot, head, a.layout.bytes()))[channels ? channel : 2 * kTokens];
    }
#pragma unroll
    for (int i = 0; i < kAhead; i++) {
      if (from + i >= end_chunk) break;
      a.of(row.slot + from + i, head)[channel] = z;
      z = fmaf(decay[i], z, added[i]);
      const int slot = keeps ? checkpoint_slot(call, row, n, from + i) : -1;
      if (slot >= 0) kept(slot) = z;
    }
  }
  if (end_chunk < row.chunks) {
    call.carry_out[static_cast<int64_t>(head) * x.K + channel] = z;
  } else if (keeps) {
    const int slot = checked_slot(call.fault, FaultName::kWriteSlots, call.sequences.write_slots, n, x.slots);
    if (slot >= 0) kept(slot) = z;
  }
}

// z'q = e^G q z + the rows of P. A warp takes a block of tokens.
template <bool channels>
__global__ void __launch_bounds__(kThreads) read_sums(SumsCall a) {
  const Call& call = a.call;
  const LinearSizes& x = call.sizes;
  const int slot = call.first_slot + static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
  const SlotOwner owner = owner_of(call, slot);
  const Row row = row_of(call, owner.row);
  if (owner.chunk < 0 || owner.chunk >= row.chunks) return;
  const Chunk chunk = chunk_of(row, owner.chunk);
  const int lane = threadIdx.x % kWarp, block = threadIdx.x / kWarp, g = lane / 4, p = lane % 4;
  const char* record = call.record(slot, head, a.layout.bytes());
  __shared__ float z[256], within[kTokens];
  for (int c = static_cast<int>(threadIdx.x); c < x.K; c += kThreads) z[c] = a.of(slot, head)[c];
  float rows[2] = {};  // g and g + 8 of the block
#pragma unroll
  for (int j = 0; j < kBlocks; j++) {
    if (j > block) break;
    Fragment scores;
    load_block(scores, record + a.layout.matrix(kOut) + lower_index(block, j) * 512, lane);
#pragma unroll
    for (int r = 0; r < 4; r++) rows[r % 2] += low_of(scores[r]) + high_of(scores[r]);
  }
#pragma unroll
  for (int low = 0; low < 2; low++) {
    rows[low] += __shfl_xor_sync(kFullMask, rows[low], 1);
    rows[low] += __shfl_xor_sync(kFullMask, rows[low], 2);
    if (p == 0) within[block * kBlock + g + low * 8] = rows[low];
  }
  __syncthreads();

  const bfloat16* q = call.q + chunk.first * call.q_stride + head_of(head, x.Hq, x.Ho) * x.K;
#pragma unroll
  for (int i = 0; i < kBlock; i += kWarp / kTokenLanes) {
    const int t = block * kBlock + i + lane / kTokenLanes, token = t - chunk.skip;
    const bool present = token >= 0 && token < chunk.count;
    float sum = 0.0f;
    for (int piece = lane % kTokenLanes; present && piece < x.K / 8; piece += kTokenLanes) {
      const char* at = channels ? record + a.layout.tile(kQuery) + tile_offset(t, piece)
                                : reinterpret_cast<const char*>(q + token * call.q_stride + piece * 8);
      const uint4 eight = *reinterpret_cast<const uint4*>(at);
      const uint32_t twos[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
      for (int e = 0; e < 4; e++) {
        sum = fmaf(low_of(twos[e]), z[piece * 8 + 2 * e], sum);
        sum = fmaf(high_of(twos[e]), z[piece * 8 + 2 * e + 1], sum);
      }
    }
#pragma unroll
    for (int offset = kTokenLanes / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(kFullMask, sum, offset);
    if (!present || lane % kTokenLanes != 0) continue;
    const float gate = channels ? 1.0f : a.gates(record)[t];
    call.sums[static_cast<int64_t>(chunk.first + token) * x.Ho + head] = fmaf(gate, sum, within[t]);
  }
}

template <bool channels>
void run_sums(const SumsCall& a, Cuda& cuda) {
  const LinearSizes& x = a.call.sizes;
  const auto heads = static_cast<unsigned>(x.Ho);
  const dim3 chunks(static_cast<unsigned>(a.call.end_slot - a.call.first_slot), heads);
  const dim3 rows(static_cast<unsigned>(x.rows - x.single_rows), heads);
  launch(cuda, sum_keys<channels>, chunks, kThreads, 0, a);
  launch(cuda, sum_chunks<channels>, rows, dim3(static_cast<unsigned>(ceil_div(x.K, kWarp) * kWarp)), 0, a);
  if (a.call.sums) launch(cuda, read_sums<channels>, chunks, kThreads, 0, a);
}

}  // namespace

void scan_sums(const Call& call, bool channels, Cuda& cuda) {
  constexpr LinearRule rule = LinearRule::kAdditive;
  const RecordLayout layout = record_layout(rule, channels, kernel_width(call.sizes.K, rule, channels));
  const SumsCall a{call, layout};
  channels ? run_sums<true>(a, cuda) : run_sums<false>(a, cuda);
}

}  // namespace linattn::cuda::chunks
