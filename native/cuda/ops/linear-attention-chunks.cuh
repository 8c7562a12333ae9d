// Chunks of linearAttention: 64 tokens between two multiples of 64 of the absolute position, so that checkpoints fall
// on their ends. `prepare` kernels make a record of each chunk and head from what does not depend on the state; the
// scan walks a row's chunks with the state in registers. All matrices of a chunk are lower triangular with blocks of 16
// x 16.
#pragma once
#include <algorithm>

#include "cuda/device/launch.cuh"
#include "cuda/device/mma.cuh"
#include "cuda/ops/linear-attention.h"

namespace linattn::cuda::chunks {

constexpr int kTokens = 64;  // of a chunk
constexpr int kBlock = 16;   // of tokens: a chunk has 4 of them
constexpr int kBlocks = kTokens / kBlock;
constexpr int kLower = kBlocks * (kBlocks + 1) / 2;  // blocks of a lower triangular matrix
constexpr int kPanelBytes = kTokens * 128;           // 64 tokens x 64 channels of bfloat16

// Where block (i, j) of a lower triangular matrix lies.
__host__ __device__ constexpr int lower_index(int i, int j) { return i * (i + 1) / 2 + j; }

// The record of a chunk and output head: tiles (below), then matrices of kLower blocks as fragments, then gates.
//   scalar decays   matrices P [T]; gates e^G, e^(G_end - G) of each token, e^G_end
//   channel decays  tiles q e^G, k e^(G_end - G), [k e^G | a e^(G before), b e^(G_end - G)]; matrices P [T [A, Pb]];
//                   gates e^G_end of each channel
// with G the sum of log decays up to a token, itself included. out = q S + P v' (+ Pb c); delta: v' = T (v - k S);
// lowRank: v' = v, c = T (a S + A v).
struct RecordLayout {
  int tiles, matrices, gates;  // how many; gates: floats
  int K;
  __host__ __device__ constexpr int tile(int i) const { return i * K * 128; }
  __host__ __device__ constexpr int matrix(int i) const { return tiles * K * 128 + i * kLower * 512; }
  __host__ __device__ constexpr int gate() const { return matrix(matrices); }
  // Of T: a float for each row of blocks, whether it has a rest; what every scan reads ends here; and the rest.
  __host__ __device__ constexpr int large() const { return gate() + gates * 4; }
  __host__ __device__ constexpr int read() const { return large() + kBlocks * 4; }
  __host__ __device__ constexpr int rest() const { return (read() + 127) / 128 * 128; }
  __host__ __device__ constexpr int bytes() const { return rest() + (matrices > 1 ? kLower * 512 : 0); }
};
constexpr int kScalarGates = 2 * kTokens + 4;

// The key width K of the kernels: the op's own, and columns of zeros, which change nothing.
__host__ __device__ constexpr int kernel_width(int own, LinearRule rule, bool channels) {
  if (own <= 64) return 64;
  if (own <= 128) return 128;
  return own <= 192 && rule == LinearRule::kAdditive && !channels ? 192 : 256;
}

__host__ __device__ constexpr RecordLayout record_layout(LinearRule rule, bool channels, int K) {
  const int matrices = rule == LinearRule::kAdditive ? 1 : rule == LinearRule::kDelta ? 2 : 4;
  const int tiles = rule == LinearRule::kAdditive ? 2 : rule == LinearRule::kDelta ? 3 : 4;
  return {channels ? tiles : 0, matrices, channels ? K : kScalarGates, K};
}
// A stage of the scan: of scalar decays k and, for outputs, q; the record of each head; v of `rows` state rows.
struct StageLayout {
  RecordLayout record;
  bool channels, outputs;
  int rows;
  int heads = 1;
  __host__ __device__ constexpr int given() const { return channels ? 0 : (outputs ? 2 : 1) * record.K * 128; }
  __host__ __device__ constexpr int values() const { return (given() + heads * record.rest() + 1023) / 1024 * 1024; }
  // A multiple of what a tile's place has to be for the matrix instructions of a warpgroup.
  __host__ __device__ constexpr int bytes() const { return values() + (rows + 63) / 64 * kPanelBytes; }
  // Of a block with two stages, whose groups of warps exchange 16 state rows and v'; or two sums of log decays.
  __host__ __device__ constexpr int shared(int groups) const {
    return 2 * bytes() + (groups > 0 ? groups * (record.K / kBlock + kBlocks) * 512 : 2 * kTokens * 4);
  }
};

enum Matrix { kOut = 0, kSolve = 1, kLow = 2, kOutLow = 3 };  // P, T, A, Pb
enum Tile { kQuery = 0, kWrite = 1, kRead = 2, kWriteLow = 3 };

// What the kernels get.
struct Call {
  LinearSizes sizes;
  SequencesView sequences;
  const bfloat16 *q, *k, *v, *a, *b;
  int64_t q_stride, k_stride, v_stride, a_stride, b_stride;  // of a token
  LinearDecay decay;
  const void* log_decay;
  int64_t decay_stride;
  const float* beta;
  int64_t beta_stride;
  float *state, *key_sum;
  int64_t state_stride, key_sum_stride;
  // The states that the rows start from, [rows from single_rows on, H, V, K], where several output heads of a state
  // head start from what one of them overwrites, or a row's first segment from what its last one does; else null. Key
  // sums alike, of output heads.
  float* start;
  const float* start_sums;
  const int32_t* checkpoint_slots;
  int checkpoint_count, every;
  bfloat16* out;  // or null
  float* sums;    // z'q: float32 [T, Ho], or null
  bool normalize;
  float scale, eps;
  // Records of the slots [first_slot, end_slot); rows that reach over an end of it hand their state on in `carry`.
  char* records;      // null: of scalar decays and the additive rule without key sums, which the scan makes for itself
  float* chunk_sums;  // [slots, Ho, K]: what the keys of a chunk add to the key sums, then those before the chunk
  int first_slot, end_slot;
  const float* carry_in;  // [Ho, V, K]
  float* carry_out;
  // Each row's chunks between these slots are cut into segments of so many chunks, which are scanned side by side; 1:
  // one segment. `ends` [rows from single_rows on, segments, H, V, K]: the state after each segment but the last. First
  // that of a segment that starts from zero, with `transitions` [same, K, K]: what it makes of each row of the
  // identity; where that is a number times the row, [same]; where it is a diagonal matrix, null.
  int segments, segment_chunks;
  float *ends, *transitions;
  Fault* fault;

  __device__ char* record(int slot, int head, int bytes) const {
    return records + (static_cast<int64_t>(slot - first_slot) * sizes.Ho + head) * bytes;
  }
  __device__ int64_t segment_index(int n, int state_head, int segment) const {
    return (int64_t{n - sizes.single_rows} * segments + segment) * sizes.H + state_head;
  }
  __device__ bool fresh(int n) const { return state == nullptr || sequences.read_slots[n] < 0; }
};

// The chunks of a row have slots of their own from `slot` on, with gaps between rows: no row has more than tokens / 64
// + 2.
struct Row {
  int first, count;  // packed tokens
  int lead;          // tokens of the first chunk's 64 that lie before the row
  int slot, chunks;
};

__device__ __forceinline__ int first_slot_of(const Call& call, int n) {
  return (call.sequences.offsets[n] - call.sizes.single_rows) / kTokens + 2 * (n - call.sizes.single_rows);
}
inline int slot_count(const LinearSizes& x) {
  return (x.tokens - x.single_rows) / kTokens + 2 * (x.rows - x.single_rows);
}

__device__ __forceinline__ Row row_of(const Call& call, int n) {
  const RowTokens tokens = row_tokens(call.sequences, n, call.fault);
  Row row;
  row.first = tokens.first;
  row.count = tokens.first >= call.sizes.single_rows ? tokens.count : 0;
  row.lead = call.sequences.positions[n] & (kTokens - 1);
  row.slot = first_slot_of(call, n);
  row.chunks = row.count > 0 ? (row.lead + row.count + kTokens - 1) / kTokens : 0;
  return row;
}

// The chunks of segment `segment` of a row's chunks [begin, end); none where it has fewer segments. The last one has
// all that is left, should a row have more tokens than max_tokens.
struct Segment {
  int first, end;
  bool last;
};
__device__ __forceinline__ Segment segment_of(const Call& call, int begin, int end, int segment) {
  if (call.segments == 1) return {begin, end, true};
  const int first = min(begin + segment * call.segment_chunks, end);
  const int after = segment < call.segments - 1 ? min(first + call.segment_chunks, end) : end;
  return {first, after, after == end};
}

// The last segment of a row that has chunks in [begin, end).
__device__ __forceinline__ int last_segment(const Call& call, int begin, int end) {
  return min(call.segments - 1, (end - begin - 1) / call.segment_chunks);
}

// Tokens of a chunk: `skip` of its 64 lie before the row, `count` follow, the first of them packed token `first`.
struct Chunk {
  int first, count, skip;
};
__device__ __forceinline__ Chunk chunk_of(const Row& row, int c) {
  const int begin = max(c * kTokens - row.lead, 0), end = min((c + 1) * kTokens - row.lead, row.count);
  return {row.first + begin, end - begin, c == 0 ? row.lead : 0};
}

// The row and chunk of a slot; row -1: of none.
struct SlotOwner {
  int row, chunk;
};
__device__ __forceinline__ SlotOwner owner_of(const Call& call, int slot) {
  int low = call.sizes.single_rows, high = call.sizes.rows;
  while (low + 1 < high) {
    const int middle = (low + high) / 2;
    if (first_slot_of(call, middle) <= slot) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return {low, slot - first_slot_of(call, low)};
}

// The slot of the checkpoint at the end of chunk c of row n, or -1.
__device__ __forceinline__ int checkpoint_slot(const Call& call, const Row& row, int n, int c) {
  if (call.every == 0) return -1;
  const int64_t after = int64_t{c + 1} * kTokens - row.lead, position = call.sequences.positions[n];
  if (after > row.count || (position + after) % call.every != 0) return -1;
  const int64_t at = call.sizes.checkpoint_begin[n] + (position + after) / call.every - position / call.every - 1;
  if (at < 0 || at >= call.checkpoint_count) return -1;
  return checked_slot(call.fault, FaultName::kCheckpointSlots, call.checkpoint_slots, static_cast<int>(at),
                      call.sizes.slots);
}

// g as the contract clamps it; NaN stays.
__device__ __forceinline__ float clamped(float g) {
  g = g < -30.0f ? -30.0f : g;
  return g > 0.0f ? 0.0f : g;
}

// The log decays of a chunk's tokens 2l and 2l + 1 in lane l, where they are numbers of a head: 0 where no token is,
// and at the first one of a row that starts from zero. As they are given: nothing waits for the loads.
__device__ __forceinline__ float2 two_given_log_decays(const Call& call, const Chunk& chunk, int state_head,
                                                       bool reset) {
  const auto* g = static_cast<const float*>(call.log_decay);
  const int token = 2 * static_cast<int>(threadIdx.x % kWarp) - chunk.skip;
  const auto of = [&](int token) {
    if (call.decay == LinearDecay::kNone || token < 0 || token >= chunk.count || (token == 0 && reset)) return 0.0f;
    return g[call.decay == LinearDecay::kHead ? state_head : (chunk.first + token) * call.decay_stride + state_head];
  };
  return make_float2(of(token), of(token + 1));
}
__device__ __forceinline__ float2 two_log_decays(const Call& call, const Chunk& chunk, int state_head, bool reset) {
  const float2 given = two_given_log_decays(call, chunk, state_head, reset);
  return make_float2(clamped(given.x), clamped(given.y));
}

// Their sums up to each token, by one warp.
__device__ __forceinline__ void sum_of_lanes(float2 two, float* to) {
  const int lane = threadIdx.x % kWarp;
  float sum = two.x + two.y;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const float before = __shfl_up_sync(kFullMask, sum, offset);
    if (lane >= offset) sum += before;
  }
  float before = __shfl_up_sync(kFullMask, sum, 1);
  if (lane == 0) before = 0.0f;
  *reinterpret_cast<float2*>(to + 2 * lane) = make_float2(before + two.x, before + two.x + two.y);
}

// The gates of token t of a record of scalar decays.
__device__ __forceinline__ void put_gates(float* gates, int t, float sum, float end) {
  gates[t] = __expf(sum);
  gates[kTokens + t] = __expf(end - sum);
  if (t == 0) gates[2 * kTokens] = __expf(end);
}

// Two floats as bfloat16, the first one low, and what is left of them.
__device__ __forceinline__ uint32_t pack(float low, float high) {
#ifdef LINATTN_CUDA_EMULATOR
  return pack_pair<bfloat16>(low, high);
#else
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
#endif
}
__device__ __forceinline__ float low_of(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_of(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
__device__ __forceinline__ uint32_t pack_rest(float low, float high, uint32_t packed) {
  return pack(low - low_of(packed), high - high_of(packed));
}

// Fragments of a 16 x 16 block X, in registers: 0: rows g, 1: rows g + 8 of columns 2p; 2, 3: the same of columns 2p
// + 8. X as the left operand of a product are all four; X' as the right one has columns 0..7 in 0 and 2, 8..15 in 1
// and 3.
using Fragment = uint32_t[4];
// Sums of a 16 x 16 block: columns 0..7, 8..15.
using Sums = float[2][4];

// sums += left right'
__device__ __forceinline__ void multiply(Sums& sums, const Fragment& left, const Fragment& right) {
  const uint32_t first[2] = {right[0], right[2]}, second[2] = {right[1], right[3]};
  mma_16x8x16<bfloat16>(sums[0], left, first);
  mma_16x8x16<bfloat16>(sums[1], left, second);
}

__device__ __forceinline__ void pack_block(Fragment& to, const Sums& sums) {
  to[0] = pack(sums[0][0], sums[0][1]);
  to[1] = pack(sums[0][2], sums[0][3]);
  to[2] = pack(sums[1][0], sums[1][1]);
  to[3] = pack(sums[1][2], sums[1][3]);
}
__device__ __forceinline__ void pack_rest(Fragment& to, const Sums& sums, const Fragment& packed) {
  to[0] = pack_rest(sums[0][0], sums[0][1], packed[0]);
  to[1] = pack_rest(sums[0][2], sums[0][3], packed[1]);
  to[2] = pack_rest(sums[1][0], sums[1][1], packed[2]);
  to[3] = pack_rest(sums[1][2], sums[1][3], packed[3]);
}

// Block (i, j) of a matrix of later tokens' rows and earlier ones' columns, with the decay between them; zero above the
// diagonal.
__device__ __forceinline__ void gate_below(Sums& block, const float* log_sums, int i, int j, int lane) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const int late = i * kBlock + lane / 4 + e / 2 * 8, early = j * kBlock + half * 8 + lane % 4 * 2 + e % 2;
      block[half][e] = late >= early ? block[half][e] * __expf(log_sums[late] - log_sums[early]) : 0.0f;
    }
  }
}

// A block as prepared: 16 bytes a lane.
__device__ __forceinline__ void load_block(Fragment& to, const char* block, int lane) {
  const uint4 four = *reinterpret_cast<const uint4*>(block + lane * 16);
  to[0] = four.x;
  to[1] = four.y;
  to[2] = four.z;
  to[3] = four.w;
}
__device__ __forceinline__ void store_block(char* block, int lane, const Fragment& from) {
  *reinterpret_cast<uint4*>(block + lane * 16) = make_uint4(from[0], from[1], from[2], from[3]);
}

// Blocks of the scan that take so many state rows each.
inline int64_t scan_blocks(const LinearSizes& x, int rows) {
  return x.V % rows == 0 ? int64_t{x.rows - x.single_rows} * x.Ho * (x.V / rows) : 0;
}
// State rows of a block where enough blocks fill the GPU with one warp for 16 rows; else 0.
inline int wide_rows(const LinearSizes& x, const Cuda& cuda) {
  const int64_t processors = cuda.properties.multiprocessors;
  if (x.K > 128) return 0;
  return scan_blocks(x, 128) >= processors ? 128 : scan_blocks(x, 64) >= 2 * processors ? 64 : 0;
}

// Whether the scan is that of Hopper's warpgroups. A newer GPU that runs the PTX for 90 may have less shared memory.
constexpr int kWarpgroupShared = 227 * 1024;
inline bool by_warpgroups(const LinearSizes& x, const Cuda& cuda) {
  return cuda.properties.capability == 90 && cuda.properties.shared_memory >= kWarpgroupShared &&
         (x.K == 64 || x.K == 128) && x.V % 64 == 0;
}
// Whether two heads of 64 state rows that follow one another have the same queries and keys, so that a block takes
// both.
inline bool pairs_of_heads(const LinearSizes& x) {
  const auto in_pairs = [&](int heads) { return x.Ho % (2 * heads) == 0; };
  return x.V == 64 && x.G == 1 && x.Hv == x.H && in_pairs(x.Hq) && in_pairs(x.Hk);
}
// Segments of rows of at most so many chunks, so that few heads fill the GPU. One where all rows are short: there the
// bits of a row do not depend on how many are beside it. `fused`: of the scan by warpgroups without records.
inline int segments_of(const LinearSizes& x, int chunks, bool fused, const Cuda& cuda) {
  constexpr int kLeastRow = 16;
  if (!by_warpgroups(x, cuda) || chunks < kLeastRow) return 1;
  const int least_chunks = fused ? 4 : 6;
  const int64_t blocks = scan_blocks(x, 64) / (fused && (x.V % 128 == 0 || pairs_of_heads(x)) ? 2 : 1);
  const int64_t fill = cuda.properties.multiprocessors / blocks;
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(fill, chunks / least_chunks)));
}

// Launches over `call`.
void prepare_scalar(const Call& call, LinearRule rule, Cuda& cuda);
void prepare_channels(const Call& call, LinearRule rule, Cuda& cuda);
void scan_sums(const Call& call, bool channels, Cuda& cuda);  // of the additive rule: key sums, and z'q
void scan_additive(const Call& call, bool channels, Cuda& cuda);
void scan_delta(const Call& call, bool channels, Cuda& cuda);
void scan_low_rank(const Call& call, Cuda& cuda);

}  // namespace linattn::cuda::chunks
