// Records of chunks whose decay is a number for each channel, and of the low-rank rule. e^(G_i - G_j) of tokens i >= j
// cannot be split into factors of i and of j over 64 tokens without leaving float32's range. So decays are summed
// within blocks of 16 tokens: of block pair (i, j) the later tokens carry the decay since their block began, the
// earlier ones that until their block ended, and `between` is what lies between the two, for j = i the inverse of the
// whole block.
#include "cuda/device/warp.cuh"
#include "cuda/ops/linear-attention-chunks-lower.cuh"

namespace linattn::cuda::chunks {
namespace {

constexpr int kThreads = 128;
constexpr int kSlice = 64;             // channels at once
constexpr int kPitch = kSlice + 8;     // reads of 8 tokens x 8 channels hit all banks
constexpr float kMostInBlock = 80.0f;  // e^80 squared is too much for float32, e^80 is not

struct ChannelsShared {
  float keys[kTokens][kPitch];  // with the decay until their block ends
  char query[kPanelBytes];      // with the decay since their block began, as the two below
  float total[kBlocks][kSlice];
  float between[kLower][kSlice];
};
struct SolveShared {
  char probe[2][kPanelBytes];  // k of delta, a of lowRank; and the rest
};
struct LowRankShared {
  float keys[kTokens][kPitch];  // b
};

template <LinearRule rule>
constexpr size_t shared_bytes() {
  size_t bytes = sizeof(ChannelsShared);
  if (rule != LinearRule::kAdditive) bytes += sizeof(SolveShared);
  if (rule == LinearRule::kLowRank) bytes += sizeof(LowRankShared);
  return bytes + kTokens * sizeof(float);
}

// A pair of channels of the tokens of a chunk's block; zeros for tokens that are not there.
struct BlockTokens {
  const Call& call;
  Chunk chunk;
  int t0, channel, head, k_at, q_at;  // head: state head; channels from K on are zeros
  bool reset;

  __device__ __forceinline__ int token(int t) const {
    const int token = t0 + t - chunk.skip;
    return token >= 0 && token < chunk.count ? token : -1;
  }
  __device__ __forceinline__ uint32_t pair(const bfloat16* x, int64_t stride, int at, int t) const {
    const int i = token(t);
    return i < 0 || channel >= call.sizes.K
               ? 0
               : *reinterpret_cast<const uint32_t*>(x + (chunk.first + i) * stride + at + channel);
  }
  __device__ __forceinline__ uint32_t q(int t) const { return pair(call.q, call.q_stride, q_at, t); }
  __device__ __forceinline__ uint32_t k(int t) const { return pair(call.k, call.k_stride, k_at, t); }
  __device__ __forceinline__ uint32_t a(int t) const { return pair(call.a, call.a_stride, head * call.sizes.K, t); }
  __device__ __forceinline__ uint32_t b(int t) const { return pair(call.b, call.b_stride, head * call.sizes.K, t); }
  __device__ __forceinline__ float2 log_decay(int t) const {
    const int i = token(t);
    if (i < 0 || (i == 0 && reset) || call.decay == LinearDecay::kNone) return make_float2(0.0f, 0.0f);
    float2 g;
    const int64_t row = (chunk.first + i) * call.decay_stride;
    if (call.decay == LinearDecay::kChannel && channel >= call.sizes.K) return make_float2(0.0f, 0.0f);
    if (call.decay != LinearDecay::kChannel) {
      g.x = static_cast<const float*>(call.log_decay)[call.decay == LinearDecay::kHead ? head : row + head];
      g.y = g.x;
    } else if (call.sizes.gate_dtype == DType::kFloat32) {
      const auto* at = static_cast<const float*>(call.log_decay) + row + head * call.sizes.K + channel;
      g = *reinterpret_cast<const float2*>(at);
    } else {
      const auto* at = static_cast<const bfloat16*>(call.log_decay) + row + head * call.sizes.K + channel;
      const uint32_t two = *reinterpret_cast<const uint32_t*>(at);
      g = make_float2(low_of(two), high_of(two));
    }
    return make_float2(clamped(g.x), clamped(g.y));
  }
};

__device__ __forceinline__ float2 exp2_of(float x, float y) { return make_float2(__expf(x), __expf(y)); }
__device__ __forceinline__ float2 scaled(uint32_t pair, float2 by) {
  return make_float2(low_of(pair) * by.x, high_of(pair) * by.y);
}
__device__ __forceinline__ uint32_t packed(float2 x) { return pack(x.x, x.y); }
__device__ __forceinline__ float2 times(float2 x, float2 y) { return make_float2(x.x * y.x, x.y * y.y); }

// The matrices of a warp's row of blocks.
template <LinearRule rule>
struct RowSums {
  Sums out[kBlocks];    // q k'
  Sums solve[kBlocks];  // k k' of delta, b a' of lowRank: transposed
  Sums low[rule == LinearRule::kLowRank ? kBlocks : 1];
  Sums out_low[rule == LinearRule::kLowRank ? kBlocks : 1];
};

// Block (row, row) where its decay leaves the range: pair by pair, each lane adding what its sums hold.
template <LinearRule rule>
__device__ void add_diagonal(RowSums<rule>& sums, int row, const BlockTokens& tokens) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, p = lane % 4;
  const auto dot = [](uint32_t x, float2 y) { return warp_sum(low_of(x) * y.x + high_of(x) * y.y); };
  // Element (i, j), or with `transposed` (j, i), of the block.
  const auto add = [&](Sums& to, int i, int j, float value) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        if (i == g + e / 2 * 8 && j == half * 8 + 2 * p + e % 2) to[half][e] += value;
      }
    }
  };
#pragma unroll
  for (int own = 0; own < kBlocks; own++) {
    if (own != row) continue;
    for (int j = 0; j < kBlock; j++) {
      float2 decay = make_float2(1.0f, 1.0f);
      for (int i = j; i < kBlock; i++) {
        float2 before = decay;
        if (i > j) {
          const float2 log_decay = tokens.log_decay(i);
          decay = times(decay, exp2_of(log_decay.x, log_decay.y));
        }
        const float2 k = scaled(tokens.k(j), decay);
        add(sums.out[own], i, j, dot(tokens.q(i), k));
        if constexpr (rule == LinearRule::kDelta) add(sums.solve[own], j, i, dot(tokens.k(i), k));
        if constexpr (rule == LinearRule::kLowRank) {
          add(sums.out_low[own], i, j, dot(tokens.q(i), scaled(tokens.b(j), decay)));
          if (i == j) continue;
          add(sums.low[own], i, j, dot(tokens.a(i), scaled(tokens.k(j), before)));
          add(sums.solve[own], j, i, dot(tokens.a(i), scaled(tokens.b(j), before)));
        }
      }
    }
  }
}

// 16 channels of a block of earlier tokens, times what lies between.
__device__ __forceinline__ void load_keys(Sums& to, const float (*keys)[kPitch], const float* between, int t0, int c0) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, p = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int c = c0 + half * 8 + 2 * p;
    const float2 by = *reinterpret_cast<const float2*>(between + c);
#pragma unroll
    for (int low = 0; low < 2; low++) {
      const float2 two = *reinterpret_cast<const float2*>(&keys[t0 + g + low * 8][c]);
      to[half][low * 2] = two.x * by.x;
      to[half][low * 2 + 1] = two.y * by.y;
    }
  }
}

template <LinearRule rule>
__global__ __launch_bounds__(kThreads, rule == LinearRule::kLowRank ? 2 : 3) void prepare_channels_kernel(Call call) {
  const int slot = call.first_slot + static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
  const SlotOwner owner = owner_of(call, slot);
  const Row row = row_of(call, owner.row);
  if (owner.chunk < 0 || owner.chunk >= row.chunks) return;
  const Chunk chunk = chunk_of(row, owner.chunk);
  const LinearSizes& x = call.sizes;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, g = lane / 4, p = lane % 4;
  const RecordLayout layout = record_layout(rule, true, kernel_width(x.K, rule, true));
  char* record = call.record(slot, head, layout.bytes());
  auto& shared = *dynamic_shared<ChannelsShared>();
  auto& solve = *reinterpret_cast<SolveShared*>(&shared + 1);
  auto& low_rank = *reinterpret_cast<LowRankShared*>(&solve + 1);
  auto* beta = reinterpret_cast<float*>(dynamic_shared<char>() + shared_bytes<rule>()) - kTokens;
  BlockTokens tokens{call, chunk, warp * kBlock, 0, head / x.G, 0, 0, owner.chunk == 0 && call.fresh(owner.row)};
  tokens.k_at = k_head(x, tokens.head) * x.K;
  tokens.q_at = head_of(head, x.Hq, x.Ho) * x.K;
  if (rule == LinearRule::kDelta && threadIdx.x < kTokens) {
    const int token = static_cast<int>(threadIdx.x) - chunk.skip;
    const bool present = token >= 0 && token < chunk.count;
    beta[threadIdx.x] = present ? call.beta[(chunk.first + token) * call.beta_stride + tokens.head] : 0.0f;
  }

  RowSums<rule> sums = {};
  for (int slice = 0; slice < layout.K / kSlice; slice++) {
    tokens.channel = slice * kSlice + 2 * lane;
    // Sums of log decays since the block began wait where the keys will lie.
    float2 own = make_float2(0.0f, 0.0f);
#pragma unroll 8
    for (int i = 0; i < kBlock; i++) {
      const float2 log_decay = tokens.log_decay(i);
      own = make_float2(own.x + log_decay.x, own.y + log_decay.y);
      *reinterpret_cast<float2*>(&shared.keys[warp * kBlock + i][2 * lane]) = own;
    }
    const bool wide = __any_sync(kFullMask, own.x < -kMostInBlock || own.y < -kMostInBlock);
    *reinterpret_cast<float2*>(&shared.total[warp][2 * lane]) = own;
    __syncthreads();

    float2 before = make_float2(0.0f, 0.0f), after = before, end = before;
#pragma unroll
    for (int block = 0; block < kBlocks; block++) {
      const float2 total = *reinterpret_cast<const float2*>(&shared.total[block][2 * lane]);
      end = make_float2(end.x + total.x, end.y + total.y);
      if (block < warp) before = make_float2(before.x + total.x, before.y + total.y);
      if (block > warp) after = make_float2(after.x + total.x, after.y + total.y);
    }
    if (warp == 0) {
      const float2 gate = exp2_of(end.x, end.y);
      *reinterpret_cast<float2*>(reinterpret_cast<float*>(record + layout.gate()) + tokens.channel) = gate;
    }
    float2 between = make_float2(0.0f, 0.0f);
    for (int j = warp; j >= 0; j--) {
      const float2 log = j == warp ? make_float2(-own.x, -own.y) : between;
      *reinterpret_cast<float2*>(&shared.between[lower_index(warp, j)][2 * lane]) = exp2_of(log.x, log.y);
      if (j == warp) continue;
      const float2 total = *reinterpret_cast<const float2*>(&shared.total[j][2 * lane]);
      between = make_float2(between.x + total.x, between.y + total.y);
    }

    const float2 until = exp2_of(before.x, before.y), then = exp2_of(after.x, after.y);
    char* tile = record + slice * kPanelBytes;
    float2 earlier = make_float2(1.0f, 1.0f);
#pragma unroll 8
    for (int i = 0; i < kBlock; i++) {
      const int t = warp * kBlock + i;
      const int at = tile_offset(t, lane / 4) + lane % 4 * 4;
      const auto put = [&](Tile which, float2 value) {
        *reinterpret_cast<uint32_t*>(tile + layout.tile(which) + at) = packed(value);
      };
      const auto put_probe = [&](float2 value) {
        const uint32_t two = packed(value);
        *reinterpret_cast<uint32_t*>(solve.probe[0] + at) = two;
        *reinterpret_cast<uint32_t*>(solve.probe[1] + at) = pack_rest(value.x, value.y, two);
      };
      const float2 sum = *reinterpret_cast<const float2*>(&shared.keys[t][2 * lane]);
      const float2 since = exp2_of(sum.x, sum.y), rest = exp2_of(own.x - sum.x, own.y - sum.y);
      const uint32_t k = tokens.k(i);
      const float2 query = scaled(tokens.q(i), since), key = scaled(k, rest);
      *reinterpret_cast<uint32_t*>(shared.query + at) = packed(query);
      *reinterpret_cast<float2*>(&shared.keys[t][2 * lane]) = key;
      put(kQuery, times(query, until));
      put(kWrite, times(key, then));
      if constexpr (rule == LinearRule::kDelta) {
        const float2 probe = scaled(k, since);
        put_probe(probe);
        put(kRead, times(probe, until));
      }
      if constexpr (rule == LinearRule::kLowRank) {
        const float2 probe = scaled(tokens.a(i), earlier), low = scaled(tokens.b(i), rest);
        put_probe(probe);
        put(kRead, times(probe, until));
        *reinterpret_cast<float2*>(&low_rank.keys[t][2 * lane]) = low;
        put(kWriteLow, times(low, then));
        earlier = since;
      }
    }
    __syncthreads();

    for (int c = 0; c < kSlice; c += kBlock) {
      Fragment query, probe[2];
      load_tile_block(query, shared.query, warp * kBlock, c, lane);
      if constexpr (rule != LinearRule::kAdditive) {
        load_tile_block(probe[0], solve.probe[0], warp * kBlock, c, lane);
        load_tile_block(probe[1], solve.probe[1], warp * kBlock, c, lane);
      }
#pragma unroll
      for (int j = 0; j < kBlocks; j++) {
        if (j > warp || (j == warp && wide)) continue;
        Sums keys;
        Fragment key[2];
        const float* by = shared.between[lower_index(warp, j)];
        load_keys(keys, shared.keys, by, j * kBlock, c);
        pack_block(key[0], keys);
        multiply(sums.out[j], query, key[0]);
        if constexpr (rule == LinearRule::kLowRank) {
          multiply(sums.low[j], probe[0], key[0]);
          load_keys(keys, low_rank.keys, by, j * kBlock, c);
          pack_block(key[0], keys);
          multiply(sums.out_low[j], query, key[0]);
        }
        if constexpr (rule != LinearRule::kAdditive) {
          pack_rest(key[1], keys, key[0]);
          multiply_exact(sums.solve[j], key, probe);
        }
      }
    }
    if (wide) add_diagonal<rule>(sums, warp, tokens);
    __syncthreads();
  }

  auto& lower = *dynamic_shared<LowerShared>();
  const auto put_matrix = [&](Matrix which, int j, const Sums& block, bool strict) {
    Sums kept;
#pragma unroll
    for (int half = 0; half < 2; half++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int apart = (warp - j) * kBlock + g + e / 2 * 8 - (half * 8 + 2 * p + e % 2);
        kept[half][e] = apart >= (strict ? 1 : 0) ? block[half][e] : 0.0f;
      }
    }
    Fragment packed_block;
    pack_block(packed_block, kept);
    store_block(record + layout.matrix(which) + lower_index(warp, j) * 512, lane, packed_block);
  };
#pragma unroll
  for (int j = 0; j < kBlocks; j++) {
    if (j > warp) continue;
    put_matrix(kOut, j, sums.out[j], false);
    if constexpr (rule == LinearRule::kLowRank) {
      put_matrix(kLow, j, sums.low[j], true);
      put_matrix(kOutLow, j, sums.out_low[j], false);
    }
    if constexpr (rule != LinearRule::kAdditive) {
      Sums kept;
#pragma unroll
      for (int half = 0; half < 2; half++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          const int early = j * kBlock + g + e / 2 * 8, late = warp * kBlock + half * 8 + 2 * p + e % 2;
          const float by = rule == LinearRule::kDelta ? beta[late] : -1.0f;
          kept[half][e] = late > early ? sums.solve[j][half][e] * by : 0.0f;
        }
      }
      put_lower(lower, warp, j, kept, lane);
    }
  }
  if constexpr (rule != LinearRule::kAdditive) {
    __syncthreads();
    Fragment inverse[kBlocks][2];
    invert_lower(lower, inverse);
    store_inverse(record, layout, inverse, rule == LinearRule::kDelta ? beta : nullptr);
  }
}

}  // namespace

void prepare_channels(const Call& call, LinearRule rule, Cuda& cuda) {
  const dim3 grid(static_cast<unsigned>(call.end_slot - call.first_slot), static_cast<unsigned>(call.sizes.Ho));
  const auto run = [&]<LinearRule of>() {
    launch(cuda, prepare_channels_kernel<of>, grid, kThreads, shared_bytes<of>(), call);
  };
  if (rule == LinearRule::kAdditive) return run.operator()<LinearRule::kAdditive>();
  if (rule == LinearRule::kDelta) return run.operator()<LinearRule::kDelta>();
  run.operator()<LinearRule::kLowRank>();
}

}  // namespace linattn::cuda::chunks
