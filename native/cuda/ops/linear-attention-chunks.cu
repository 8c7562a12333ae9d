// linearAttention in chunks of 64 tokens on the matrix units: bfloat16, key widths up to 256.
#include <algorithm>

#include "cuda/ops/linear-attention-chunks.cuh"

namespace linattn::cuda {
namespace {

using chunks::Call;

// Records of at most so many bytes at a time.
constexpr int64_t kRecordBytes = int64_t{512} << 20;

bool aligned(const Tensor& x, uintptr_t bytes) {
  return !x || (reinterpret_cast<uintptr_t>(x.data) % bytes == 0 &&
                static_cast<uintptr_t>(x.stride0) * static_cast<uintptr_t>(dtype_bytes(x.dtype)) % bytes == 0);
}

bool by_channel(const LinearAttention& op) {
  return op.decay == LinearDecay::kChannel || op.rule == LinearRule::kLowRank;
}

// The `floats` of the state that each row from first_row on starts from.
__global__ void copy_read_states(SequencesView sequences, int first_row, const float* states, int64_t stride, int slots,
                                 int64_t floats, float* to, Fault* fault) {
  const int n = first_row + static_cast<int>(blockIdx.y);
  const int slot = checked_slot(fault, FaultName::kReadSlots, sequences.read_slots, n, slots);
  if (slot < 0) return;
  for (int64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < floats; i += int64_t{gridDim.x} * blockDim.x) {
    to[blockIdx.y * floats + i] = states[slot * stride + i];
  }
}

// Null for no state.
float* starts_of(const Tensor& state, const LinearSizes& x, const Call& call, Cuda& cuda) {
  if (!state) return nullptr;
  const int64_t floats = state.inner();
  const int rows = x.rows - x.single_rows;
  auto* to = cuda.scratch_of<float>(static_cast<size_t>(rows * floats));
  const dim3 grid(static_cast<unsigned>(std::min<int64_t>(256, ceil_div(floats, 256))), static_cast<unsigned>(rows));
  launch(cuda, copy_read_states, grid, dim3(256), 0, call.sequences, x.single_rows, state.as<const float>(),
         state.stride0, x.slots, floats, to, call.fault);
  return to;
}

}  // namespace

bool chunk_supports(const LinearAttention& op, const LinearSizes& x, const Cuda& cuda) {
  if (!op.k || x.dtype != DType::kBFloat16 || op.decay == LinearDecay::kValue) return false;
  if (x.K % 8 != 0 || x.K > (by_channel(op) && op.rule != LinearRule::kAdditive ? 128 : 256)) return false;
  const int K = chunks::kernel_width(x.K, op.rule, by_channel(op));
  const chunks::StageLayout least{chunks::record_layout(op.rule, by_channel(op), K), by_channel(op), true, 16};
  if (least.shared(1) > cuda.properties.shared_memory) return false;
  if (x.V % 16 != 0 || op.checkpoint_every % chunks::kTokens != 0 || x.Ho > 65535 || x.rows > 65535) return false;
  return aligned(op.q, 16) && aligned(op.k, 16) && aligned(op.v, 16) && aligned(op.a, 16) && aligned(op.b, 16) &&
         aligned(op.out, 16) && aligned(op.state, 8) && aligned(op.key_sum, 8) &&
         (op.decay != LinearDecay::kChannel || aligned(op.log_decay, 8));
}

void run_chunks(const LinearAttention& op, const LinearSizes& x, Cuda& cuda) {
  if (x.rows == x.single_rows) return;
  Call call{};
  call.sizes = x;
  call.sequences = view_of(op.sequences);
  // Without q the keys stand for it, and what comes of them is not stored.
  const Tensor& q = op.q ? op.q : op.k;
  if (!op.q) {
    call.sizes.Hq = x.Hk;
    call.sizes.q_share = x.k_share;
  }
  call.q = q.as<const bfloat16>();
  call.k = op.k.as<const bfloat16>();
  call.v = op.v.as<const bfloat16>();
  call.a = op.a.as<const bfloat16>();
  call.b = op.b.as<const bfloat16>();
  call.q_stride = q.stride0;
  call.k_stride = op.k.stride0;
  call.v_stride = op.v.stride0;
  call.a_stride = op.a.stride0;
  call.b_stride = op.b.stride0;
  call.decay = op.decay;
  call.log_decay = op.log_decay.data;
  call.decay_stride = op.log_decay.stride0;
  call.beta = op.beta.as<const float>();
  call.beta_stride = op.beta.stride0;
  call.state = op.state.as<float>();
  call.state_stride = op.state.stride0;
  call.key_sum = op.key_sum.as<float>();
  call.key_sum_stride = op.key_sum.stride0;
  call.checkpoint_slots = op.checkpoint_slots.as<const int32_t>();
  call.checkpoint_count = op.checkpoint_slots ? static_cast<int>(op.checkpoint_slots.shape[0]) : 0;
  call.every = op.checkpoint_every;
  call.out = op.out.as<bfloat16>();
  call.normalize = op.normalize;
  call.scale = op.scale;
  call.eps = op.eps;
  call.fault = cuda.fault();

  const bool channels = by_channel(op), sums = op.key_sum || op.normalize || op.denominator;
  if (op.denominator) {
    call.sums = op.denominator.as<float>();
  } else if (op.normalize) {
    call.sums = cuda.scratch_of<float>(static_cast<size_t>(x.tokens) * static_cast<size_t>(x.Ho));
  }
  const int K = chunks::kernel_width(x.K, op.rule, channels);
  const int bytes = chunks::record_layout(op.rule, channels, K).bytes(), slots = chunks::slot_count(x);
  const int most_chunks = static_cast<int>(ceil_div(x.max_tokens, chunks::kTokens)) + 1;
  const bool fused = op.rule == LinearRule::kAdditive && !channels && !sums && chunks::by_warpgroups(x, cuda);
  const bool alone =
      fused || (op.rule == LinearRule::kAdditive && !channels && !sums && chunks::wide_rows(x, cuda) > 0);
  const int64_t most = alone ? slots : std::max<int64_t>(64, kRecordBytes / bytes / x.Ho);
  const int window = static_cast<int>(std::min<int64_t>(slots, most));
  if (!alone) call.records = cuda.scratch_of<char>(static_cast<size_t>(int64_t{window} * x.Ho * bytes));
  if (sums) call.chunk_sums = cuda.scratch_of<float>(static_cast<size_t>(int64_t{window} * x.Ho * x.K));
  const int row_chunks = std::min(most_chunks, window);
  call.segments = alone && !fused ? 1 : chunks::segments_of(call.sizes, row_chunks, fused, cuda);
  // Without the chunk that a row has more where it begins within one: the last segment has what is left.
  call.segment_chunks = static_cast<int>(ceil_div(std::max(row_chunks - 1, 1), call.segments));
  if (call.segments == 1 && x.G > 1) call.start = starts_of(op.state, x, call, cuda);
  if (x.G > 1) call.start_sums = starts_of(op.key_sum, x, call, cuda);
  if (call.segments > 1) {
    const int64_t state_heads = int64_t{x.rows - x.single_rows} * x.H, heads = state_heads * call.segments;
    if (op.state) call.start = cuda.scratch_of<float>(static_cast<size_t>(state_heads * x.V * x.K));
    call.ends = cuda.scratch_of<float>(static_cast<size_t>(heads * x.V * x.K));
    if (op.rule == LinearRule::kAdditive && !channels) {
      call.transitions = cuda.scratch_of<float>(static_cast<size_t>(heads));
    } else if (op.rule != LinearRule::kAdditive) {
      call.transitions = cuda.scratch_of<float>(static_cast<size_t>(heads * x.K * x.K));
    }
  }
  float* carry[2] = {};
  const int64_t state_floats = int64_t{x.Ho} * (x.V + 1) * x.K;
  if (window < slots) {
    for (float*& one : carry) one = cuda.scratch_of<float>(static_cast<size_t>(state_floats));
  }
  for (int first = 0, i = 0; first < slots; first += window, i++) {
    call.first_slot = first;
    call.end_slot = first + std::min(window, slots - first);
    call.carry_in = carry[i % 2];
    call.carry_out = carry[(i + 1) % 2];
    if (channels) {
      prepare_channels(call, op.rule, cuda);
    } else if (!alone) {
      prepare_scalar(call, op.rule, cuda);
    }
    if (sums) {
      Call of_sums = call;
      if (window < slots) {
        of_sums.carry_in += int64_t{x.Ho} * x.V * x.K;
        of_sums.carry_out += int64_t{x.Ho} * x.V * x.K;
      }
      scan_sums(of_sums, channels, cuda);
    }
    if (op.rule == LinearRule::kAdditive) {
      scan_additive(call, channels, cuda);
    } else if (op.rule == LinearRule::kDelta) {
      scan_delta(call, channels, cuda);
    } else {
      scan_low_rank(call, cuda);
    }
  }
}

}  // namespace linattn::cuda
