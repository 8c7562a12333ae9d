// linearAttention on the CPU: every state row goes through the tokens one after the other
// (linear-attention-kernels.inc), in parallel over sequences, heads and blocks of state rows. Chunks and their
// triangular inverse would cost as many operations here, and would tie the bits to where a prompt is cut.
#include "ops/linear-attention.h"

#include <algorithm>
#include <string>
#include <vector>

#include "core/error.h"
#include "cpu/cpu.h"
#include "cpu/sequence-slots.h"
#include "cpu/simd.h"

namespace linattn::cpu {
namespace {

// Rows of numbers: row t starts at element t * stride.
struct Strided {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t stride = 0;
};

// Memory of one thread: a block of tokens as float32, K padded to k_stride.
struct LinearScratch {
  float *q, *k, *probe, *b, *decay, *v, *beta, *token_decay, *work;  // q null: no output is wanted
  int64_t q_size, v_stride;                                          // floats of one q head's block; of one v row
};

// One sequence, one state head, a block of the head's state rows.
struct LinearHead {
  LinearRule rule;
  LinearDecay decay;
  int K, rows, q_heads, block;  // block: tokens that the scratch holds
  int64_t first, tokens;        // of the packed tokens
  int64_t k_stride;
  Strided q, k, v, beta, a, b, log_decay, out;
  int64_t out_head;      // elements between the outputs of two q heads
  const float* divisor;  // [T, Ho], from the head's first q head on
  int64_t divisor_stride;
  float scale, eps;
  const float* source;                                 // rows * K floats, or null: from zero
  float* work;                                         // rows * K floats: the end state
  const int32_t *checkpoint_after, *checkpoint_slots;  // after how many tokens of the sequence, rising; -1 = skip
  int64_t checkpoint_count, checkpoint_stride;
  float* checkpoint_base;
  LinearScratch scratch;
};

}  // namespace
}  // namespace linattn::cpu

#define LINATTN_WITHOUT_BF16
#define LINATTN_KERNELS "cpu/ops/linear-attention-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {
namespace {

constexpr int kBlock = 16;      // tokens made float32 at once
constexpr int64_t kLanes = 16;  // the most of any level

int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

struct Plan {
  std::vector<int32_t> checkpoint_after;  // of all sequences: after how many of its tokens
  std::vector<int64_t> checkpoint_begin;  // [N + 1] into it
};

Plan make_plan(const LinearAttention& op) {
  check_offsets(op.kName, op.sequences);
  const int64_t N = op.sequences.rows;
  const auto* offsets = op.sequences.offsets.as<int32_t>();
  const auto* positions = op.sequences.positions.as<int32_t>();
  Plan plan;
  plan.checkpoint_begin.assign(static_cast<size_t>(N + 1), 0);
  for (int64_t n = 0; n < N && op.checkpoint_every > 0; n++) {
    if (positions[n] < 0) {
      throw Error("ERR_ARGUMENT", "linearAttention: sequences.positions[" + std::to_string(n) +
                                      "] must be 0 or more, got " + std::to_string(positions[n]));
    }
    const int64_t tokens = offsets[n + 1] - offsets[n];
    for (int64_t after = op.checkpoint_every - positions[n] % op.checkpoint_every; after <= tokens;
         after += op.checkpoint_every) {
      plan.checkpoint_after.push_back(static_cast<int32_t>(after));
    }
    plan.checkpoint_begin[static_cast<size_t>(n + 1)] = static_cast<int64_t>(plan.checkpoint_after.size());
  }
  const auto count = static_cast<int64_t>(plan.checkpoint_after.size());
  if (op.checkpoint_every > 0 && count > op.checkpoint_slots.dim(0)) {
    throw Error("ERR_ARGUMENT", "linearAttention: checkpoints.slots must have an entry for each of the " +
                                    std::to_string(count) + " positions, got " +
                                    std::to_string(op.checkpoint_slots.dim(0)));
  }
  if (op.state) {
    check_slots(op.kName, op.sequences, op.state.shape[0], "checkpoints.slots", op.checkpoint_slots.as<int32_t>(),
                count);
  }
  return plan;
}

Strided strided(const Tensor& x, int64_t offset) {
  if (!x) return {};
  return {x.as<char>() + offset * static_cast<int64_t>(dtype_bytes(x.dtype)), x.dtype, x.stride0};
}

struct Sizes {
  int64_t H, Ho, K, V, G;  // G: q heads of a state head
};

// One pass over all sequences and heads: of the states, or of the key sums, which are states of one row with v = 1.
void run_pass(const LinearAttention& op, Cpu& cpu, const Plan& plan, const Sizes& size, const Tensor& state,
              const Strided& out, const float* divisor, bool key_sum) {
  const int64_t N = op.sequences.rows, V = key_sum ? 1 : size.V, K = size.K, G = op.q ? size.G : 0;
  if (N == 0 || size.H == 0) return;
  // Blocks of state rows: a multiple of the lanes, so that no row's arithmetic depends on them.
  const int threads = cpu.pool->threads();
  int64_t block_rows = V;
  while (block_rows > kLanes && N * size.H * ((V + block_rows - 1) / block_rows) < 4 * threads) {
    block_rows = padded((block_rows + 1) / 2);
    if (block_rows == kLanes) break;
  }
  const int64_t blocks = (V + block_rows - 1) / block_rows;
  const int block = static_cast<int>(std::clamp<int64_t>(kBlock / std::max<int64_t>(G, 1), 4, kBlock));

  const int64_t k_stride = padded(K), v_stride = padded(block_rows), k_size = block * k_stride;
  const int64_t q_floats = G * k_size, decay_floats = block * std::max(k_stride, v_stride), v_floats = block * v_stride;
  const int64_t floats = q_floats + 3 * k_size + decay_floats + v_floats + 2 * padded(block) + padded(block_rows * K);
  float* memory = cpu.scratch_of<float>(static_cast<size_t>(floats * threads));

  const auto* offsets = op.sequences.offsets.as<int32_t>();
  const auto* read_slots = op.sequences.read_slots.as<int32_t>();
  const auto* write_slots = op.sequences.write_slots.as<int32_t>();
  const auto run_head = LINATTN_DISPATCH(cpu.level, run_head);
  cpu.pool->run(N * size.H * blocks, [&](int64_t task, int thread) {
    const int64_t n = task / (size.H * blocks), h = task / blocks % size.H, v0 = task % blocks * block_rows;
    LinearHead head{};
    head.rule = op.rule;
    head.decay = op.decay;
    head.K = static_cast<int>(K);
    head.rows = static_cast<int>(std::min(block_rows, V - v0));
    head.q_heads = static_cast<int>(G);
    head.block = block;
    head.first = offsets[n];
    head.tokens = offsets[n + 1] - offsets[n];
    head.k_stride = k_stride;
    if (op.q) head.q = strided(op.q, (G > 1 ? h * G : h * op.q.shape[1] / size.H) * K);
    if (op.k) {
      head.k = strided(op.k, h * op.k.shape[1] / size.H * K);
      if (!key_sum) head.v = strided(op.v, h * op.v.shape[1] / size.H * V + v0);
      head.beta = strided(op.beta, h);
      head.a = strided(op.a, h * K);
      head.b = strided(op.b, h * K);
      const int64_t width = op.decay == LinearDecay::kChannel ? K : op.decay == LinearDecay::kValue ? V : 1;
      head.log_decay = strided(op.log_decay, h * width + (op.decay == LinearDecay::kValue ? v0 : 0));
      if (op.decay == LinearDecay::kHead) head.log_decay.stride = 0;
    }
    head.out = out;
    if (out.data) {
      head.out.data = static_cast<char*>(out.data) + (h * G * V + v0) * static_cast<int64_t>(dtype_bytes(out.dtype));
    }
    head.out_head = V;
    head.divisor = divisor ? divisor + h * G : nullptr;
    head.divisor_stride = size.Ho;
    head.scale = key_sum ? 1 : op.scale;
    head.eps = op.eps;

    LinearScratch& x = head.scratch;
    float* next = memory + thread * floats;
    const auto take = [&next](int64_t count) {
      float* p = next;
      next += count;
      return p;
    };
    x.q = take(q_floats);
    x.k = take(k_size);
    x.probe = take(k_size);
    x.b = take(k_size);
    x.decay = take(decay_floats);
    x.v = take(v_floats);
    x.beta = take(padded(block));
    x.token_decay = take(padded(block));
    x.work = take(padded(block_rows * K));
    if (G == 0) x.q = nullptr;
    x.q_size = k_size;
    x.v_stride = v_stride;

    head.work = x.work;
    if (state) {
      float* base = state.as<float>() + (h * V + v0) * K;
      if (read_slots[n] >= 0) head.source = base + read_slots[n] * state.stride0;
      if (write_slots[n] >= 0) head.work = base + write_slots[n] * state.stride0;
      head.checkpoint_base = base;
      head.checkpoint_stride = state.stride0;
      const int64_t begin = plan.checkpoint_begin[static_cast<size_t>(n)];
      head.checkpoint_after = plan.checkpoint_after.data() + begin;
      head.checkpoint_slots = op.checkpoint_slots.as<int32_t>() + begin;
      head.checkpoint_count = plan.checkpoint_begin[static_cast<size_t>(n + 1)] - begin;
    }
    run_head(head);
  });
}

}  // namespace

void run(const LinearAttention& op, Cpu& cpu) {
  Sizes size{};
  if (op.k) {
    size.H = std::max(op.k.shape[1], op.v.shape[1]);
    size.K = op.k.shape[2];
    size.V = op.v.shape[2];
  } else {
    size.H = op.state.shape[1];
    size.V = op.state.shape[2];
    size.K = op.state.shape[3];
  }
  size.Ho = op.q ? std::max(op.q.shape[1], size.H) : size.H;
  size.G = size.Ho / size.H;
  const Plan plan = make_plan(op);

  const float* divisor = nullptr;
  if (op.key_sum || op.normalize || op.denominator) {
    float* sums = nullptr;
    if (op.denominator) {
      sums = op.denominator.as<float>();
    } else if (op.q) {
      sums = cpu.scratch_of<float>(static_cast<size_t>(op.sequences.tokens * size.Ho));
    }
    run_pass(op, cpu, plan, size, op.key_sum, {sums, DType::kFloat32, size.Ho}, nullptr, true);
    if (op.normalize) divisor = sums;
  }
  run_pass(op, cpu, plan, size, op.state, strided(op.out, 0), divisor, false);
}

}  // namespace linattn::cpu
