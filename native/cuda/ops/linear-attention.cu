// linearAttention on CUDA. The kernels: linear-attention-recurrence.cuh (any op, token by token) and
// linear-attention-chunks.cu (matrix products over chunks of tokens).
#include <algorithm>
#include <string>

#include "cuda/device/launch.cuh"
#include "cuda/ops/linear-attention-recurrence.h"
#include "cuda/ops/linear-attention.h"
#include "ops/linear-attention.h"

namespace linattn::cuda {
namespace {

constexpr int kPlanThreads = 256;
constexpr int kRecurrentTokens = 8;  // no chunks where no row is longer

// begin[n]: entries of checkpoint_slots before those of row n. One block.
__global__ void plan_checkpoints(SequencesView s, int every, int count, int32_t* begin, Fault* fault) {
  __shared__ int sums[kPlanThreads];
  const int thread = threadIdx.x, by_thread = static_cast<int>(ceil_div(s.rows, kPlanThreads));
  const int first = min(thread * by_thread, s.rows), end = min(first + by_thread, s.rows);
  const auto of_row = [&](int n) {
    const int64_t position = s.positions[n];
    if (position < 0) {
      report(fault, FaultKind::kRange, FaultName::kPositions, n, s.positions[n], 0, INT32_MAX);
      return 0;
    }
    return static_cast<int>((position + row_tokens(s, n, fault).count) / every - position / every);
  };
  int own = 0;
  for (int n = first; n < end; n++) own += of_row(n);
  sums[thread] = own;
  __syncthreads();
  int before = 0;
  for (int i = 0; i < thread; i++) before += sums[i];
  for (int n = first; n < end; n++) {
    begin[n] = before;
    before += of_row(n);
  }
  if (thread != kPlanThreads - 1) return;
  begin[s.rows] = before;
  if (before > count) report(fault, FaultKind::kTooFew, FaultName::kCheckpointSlots, 0, count, 0, before);
}

// That no slot of a checkpoint is written twice, nor read.
__global__ void check_checkpoints(SequencesView s, const int32_t* begin, const int32_t* list, int count, int slots,
                                  Fault* fault) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= min(count, begin[s.rows])) return;
  const int slot = checked_slot(fault, FaultName::kCheckpointSlots, list, i, slots);
  if (slot < 0) return;
  for (int n = 0; n < s.rows; n++) {
    if (s.write_slots[n] == slot) report(fault, FaultKind::kTwice, FaultName::kCheckpointSlots, i, slot);
    if (s.read_slots[n] == slot) report(fault, FaultKind::kReadAndWritten, FaultName::kCheckpointSlots, i, slot);
  }
  for (int other = 0; other < i; other++) {
    if (list[other] == slot) report(fault, FaultKind::kTwice, FaultName::kCheckpointSlots, i, slot);
  }
}

const int32_t* checkpoints_of(const LinearAttention& op, const LinearSizes& sizes, Cuda& cuda) {
  if (op.checkpoint_every == 0) return nullptr;
  auto* begin = cuda.scratch_of<int32_t>(static_cast<size_t>(sizes.rows) + 1);
  const SequencesView view = view_of(op.sequences);
  const auto* list = op.checkpoint_slots.as<const int32_t>();
  const int count = static_cast<int>(op.checkpoint_slots.shape[0]);
  launch(cuda, plan_checkpoints, dim3(1), dim3(kPlanThreads), 0, view, op.checkpoint_every, count, begin, cuda.fault());
  if (!cuda.recording) {
    const auto blocks = static_cast<unsigned>(ceil_div(count, kPlanThreads));
    launch(cuda, check_checkpoints, dim3(blocks), dim3(kPlanThreads), 0, view, begin, list, count, sizes.slots,
           cuda.fault());
  }
  return begin;
}

bool aligned_to(const void* data, int64_t stride_bytes, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(bytes) == 0 && stride_bytes % bytes == 0;
}

// Whether four elements of any row, from a multiple of four on, may be loaded at once.
bool by_fours(const Tensor& x) {
  const auto bytes = static_cast<int64_t>(dtype_bytes(x.dtype));
  return !x || aligned_to(x.data, x.stride0 * bytes, 4 * bytes);
}

Strided strided(const Tensor& x) { return x ? Strided{x.data, x.stride0} : Strided{}; }

Recurrence recurrence_of(const LinearAttention& op, const LinearSizes& sizes, Cuda& cuda) {
  Recurrence x{};
  x.sizes = sizes;
  x.sequences = view_of(op.sequences);
  x.q = strided(op.q);
  x.k = strided(op.k);
  x.beta = strided(op.beta);
  x.a = strided(op.a);
  x.b = strided(op.b);
  x.log_decay = strided(op.log_decay);
  if (op.decay == LinearDecay::kHead) x.log_decay.stride = 0;
  x.decay = op.decay;
  x.aligned = by_fours(op.q) && by_fours(op.k) && by_fours(op.a) && by_fours(op.b) &&
              (op.decay != LinearDecay::kChannel || by_fours(op.log_decay));
  if (op.checkpoint_every > 0) {
    x.checkpoint_slots = op.checkpoint_slots.as<const int32_t>();
    x.checkpoint_count = static_cast<int>(op.checkpoint_slots.shape[0]);
    x.checkpoint_every = op.checkpoint_every;
  }
  x.eps = op.eps;
  x.fault = cuda.fault();
  return x;
}

void use_state(Recurrence& x, const Tensor& state) {
  x.state_aligned = true;
  if (!state) return;
  x.state = state.as<float>();
  x.slot_stride = state.stride0;
  x.state_aligned = aligned_to(state.data, state.stride0 * 4, 16);
}

// For shared_head: `heads` read `own` heads.
uint32_t share_of(int heads, int own) {
  const int readers = own > 0 ? heads / own : 1;
  return readers == 1 ? 0 : static_cast<uint32_t>((int64_t{1} << 32) / readers + 1);
}

void start(Recurrence x, int first, int end, bool single, LinearRule rule, Cuda& cuda) {
  x.first_row = first;
  x.end_row = end;
  x.single = single;
  const bool step = single && x.aligned && x.state_aligned && x.checkpoint_every == 0;
  for_float(x.sizes.dtype, [&](auto type) { run_recurrence<decltype(type)>(x, rule, step, cuda); });
}

}  // namespace

Recurrence state_recurrence(const LinearAttention& op, const LinearSizes& sizes, Cuda& cuda) {
  Recurrence x = recurrence_of(op, sizes, cuda);
  x.v = strided(op.v);
  x.out = strided(op.out);
  x.scale = op.scale;
  use_state(x, op.state);
  return x;
}

LinearSizes sizes_of(const LinearAttention& op) {
  LinearSizes x{};
  x.rows = op.sequences.rows;
  x.single_rows = std::min(op.sequences.single_rows, op.sequences.tokens);
  x.tokens = op.sequences.tokens;
  x.max_tokens = op.sequences.max_tokens;
  const auto size = [](const Tensor& tensor, int i) { return static_cast<int>(tensor.shape[i]); };
  if (op.k) {
    x.Hk = size(op.k, 1);
    x.Hv = size(op.v, 1);
    x.H = std::max(x.Hk, x.Hv);
    x.K = size(op.k, 2);
    x.V = size(op.v, 2);
  } else {
    x.H = size(op.state, 1);
    x.V = size(op.state, 2);
    x.K = size(op.state, 3);
  }
  x.Hq = op.q ? size(op.q, 1) : 0;
  x.Ho = std::max(x.Hq, x.H);
  x.G = x.H > 0 ? x.Ho / x.H : 0;
  if (x.Ho > kMostHeads) {
    throw Error("ERR_UNSUPPORTED", "linearAttention: on CUDA at most " + std::to_string(kMostHeads) + " heads, got " +
                                       std::to_string(x.Ho));
  }
  x.q_share = share_of(x.Ho, x.Hq);
  x.k_share = share_of(x.H, x.Hk);
  x.v_share = share_of(x.H, x.Hv);
  x.slots = op.state ? size(op.state, 0) : 0;
  x.dtype = op.q ? op.q.dtype : op.k.dtype;
  x.gate_dtype = op.log_decay ? op.log_decay.dtype : DType::kFloat32;
  return x;
}

void run(const LinearAttention& op, Cuda& cuda) {
  LinearSizes sizes = sizes_of(op);
  if (sizes.rows == 0 || sizes.H == 0) return;
  check_sequences(cuda, op.sequences, op.state ? sizes.slots : -1);
  sizes.checkpoint_begin = checkpoints_of(op, sizes, cuda);

  Recurrence main = state_recurrence(op, sizes, cuda), sums = recurrence_of(op, sizes, cuda);
  const bool with_sums = op.key_sum || op.normalize || op.denominator;
  if (with_sums) {
    sums.sizes.V = 1;
    use_state(sums, op.key_sum);
    if (op.denominator) {
      sums.sums = op.denominator.as<float>();
    } else if (op.normalize) {
      sums.sums = cuda.scratch_of<float>(static_cast<size_t>(sizes.tokens) * static_cast<size_t>(sizes.Ho));
    }
    if (!sums.sums) sums.q = {};
    if (op.normalize) main.divisor = sums.sums;
  }

  const auto recur = [&](int first, int end, bool single) {
    if (first == end) return;
    if (with_sums) start(sums, first, end, single, op.rule, cuda);
    start(main, first, end, single, op.rule, cuda);
  };
  recur(0, sizes.single_rows, true);
  if (sizes.max_tokens > kRecurrentTokens && chunk_supports(op, sizes, cuda)) {
    if (sizes.single_rows < sizes.rows) run_chunks(op, sizes, cuda);
  } else {
    recur(sizes.single_rows, sizes.rows, false);
  }
}

}  // namespace linattn::cuda
