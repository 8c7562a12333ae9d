// Records of chunks whose decay is a number for each token and head, or none: q k' and the inverse for the delta rule.
#include "cuda/device/warp.cuh"
#include "cuda/ops/linear-attention-chunks-lower.cuh"

namespace linattn::cuda::chunks {
namespace {

constexpr int kThreads = 128;

struct ScalarShared {
  float sum[kTokens];  // of log decays, up to and with each token
  float beta[kTokens];
  LowerShared lower;
};

// A warp takes 16 rows of k k' (as columns, from the diagonal down) and 16 rows of q k'. Both use the rows as left
// operands for all of K.
template <int K, bool delta>
__global__ __launch_bounds__(kThreads) void prepare_scalar_kernel(Call call) {
  const int slot = call.first_slot + static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
  const SlotOwner owner = owner_of(call, slot);
  const Row row = row_of(call, owner.row);
  if (owner.chunk < 0 || owner.chunk >= row.chunks) return;
  const Chunk chunk = chunk_of(row, owner.chunk);
  const LinearSizes& x = call.sizes;
  const int state_head = head / x.G;
  char* q_tile = dynamic_shared<char>();
  char* k_tile = q_tile + K * 128;
  auto& shared = *reinterpret_cast<ScalarShared*>(k_tile + K * 128);
  const bfloat16* q = call.q + chunk.first * call.q_stride + head_of(head, x.Hq, x.Ho) * x.K;
  const bfloat16* k = call.k + chunk.first * call.k_stride + k_head(x, state_head) * x.K;
  load_tile_async<kThreads, K / 8>(k_tile, k, call.k_stride, chunk, x.K / 8, static_cast<int>(threadIdx.x));
  load_tile_async<kThreads, K / 8>(q_tile, q, call.q_stride, chunk, x.K / 8, static_cast<int>(threadIdx.x));
  copy_async_commit();

  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, g = lane / 4, p = lane % 4;
  if (warp == 0) {
    sum_of_lanes(two_log_decays(call, chunk, state_head, owner.chunk == 0 && call.fresh(owner.row)), shared.sum);
  } else if (delta && warp < 3) {
    const int t = threadIdx.x - kWarp, token = t - chunk.skip;
    const bool present = token >= 0 && token < chunk.count;
    shared.beta[t] = present ? call.beta[(chunk.first + token) * call.beta_stride + state_head] : 0.0f;
  }
  copy_async_wait<0>();
  __syncthreads();

  constexpr RecordLayout layout = record_layout(delta ? LinearRule::kDelta : LinearRule::kAdditive, false, K);
  char* record = call.record(slot, head, layout.bytes());
  if (threadIdx.x < kTokens) {
    put_gates(reinterpret_cast<float*>(record + layout.gate()), threadIdx.x, shared.sum[threadIdx.x],
              shared.sum[kTokens - 1]);
  }

  Fragment left[K / kBlock];
  const auto load_left = [&](const char* tile) {
#pragma unroll
    for (int c = 0; c < K / kBlock; c++) load_tile_block(left[c], tile, warp * kBlock, c * kBlock, lane);
  };
  const auto product = [&](Sums& sums, const char* tile, int t0) {
#pragma unroll
    for (int c = 0; c < K / kBlock; c++) {
      Fragment right;
      load_tile_block(right, tile, t0, c * kBlock, lane);
      multiply(sums, left[c], right);
    }
  };
  if constexpr (delta) {
    load_left(k_tile);
    for (int i = warp; i < kBlocks; i++) {
      Sums sums = {};
      product(sums, k_tile, i * kBlock);
#pragma unroll
      for (int half = 0; half < 2; half++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          const int early = warp * kBlock + g + e / 2 * 8, late = i * kBlock + half * 8 + 2 * p + e % 2;
          const float gate = __expf(shared.sum[late] - shared.sum[early]) * shared.beta[late];
          sums[half][e] = late > early ? sums[half][e] * gate : 0.0f;
        }
      }
      put_lower(shared.lower, i, warp, sums, lane);
    }
  }
  load_left(q_tile);
  for (int j = 0; j <= warp; j++) {
    Sums sums = {};
    product(sums, k_tile, j * kBlock);
    gate_below(sums, shared.sum, warp, j, lane);
    Fragment packed;
    pack_block(packed, sums);
    store_block(record + layout.matrix(kOut) + lower_index(warp, j) * 512, lane, packed);
  }
  if constexpr (delta) {
    __syncthreads();
    Fragment inverse[kBlocks][2];
    invert_lower(shared.lower, inverse);
    store_inverse(record, layout, inverse, shared.beta);
  }
}

template <int K>
void prepare(const Call& call, LinearRule rule, Cuda& cuda) {
  const dim3 grid(static_cast<unsigned>(call.end_slot - call.first_slot), static_cast<unsigned>(call.sizes.Ho));
  const size_t shared = 2 * K * 128 + sizeof(ScalarShared);
  if constexpr (kernel_width(K, LinearRule::kDelta, false) == K) {
    if (rule == LinearRule::kDelta) {
      return launch(cuda, prepare_scalar_kernel<K, true>, grid, kThreads, shared, call);
    }
  }
  launch(cuda, prepare_scalar_kernel<K, false>, grid, kThreads, shared - sizeof(LowerShared), call);
}

}  // namespace

void prepare_scalar(const Call& call, LinearRule rule, Cuda& cuda) {
  const int K = kernel_width(call.sizes.K, rule, false);
  if (K == 64) return prepare<64>(call, rule, cuda);
  if (K == 128) return prepare<128>(call, rule, cuda);
  if (K == 192) return prepare<192>(call, rule, cuda);
  prepare<256>(call, rule, cuda);
}

}  // namespace linattn::cuda::chunks
