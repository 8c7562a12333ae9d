#include "ops/causal-conv.h"

#include <algorithm>

#include "cpu/cpu.h"
#include "cpu/sequence-slots.h"
#include "cpu/simd.h"

namespace linattn::cpu {
namespace {

// One sequence, `width` channels.
struct ConvBlock {
  int W, width, filters;
  bool silu;
  int64_t tokens, x_stride, out_stride;
  const void* x;
  void* out;
  int64_t channels;            // from a filter's outputs to those of the next
  const float *weight, *bias;  // of the first filter: [width, W]; [width] or null
  const float* source;         // [width, W - 1], or null: zeros
  float* target;               // [width, W - 1], or null: dropped
  float *weights, *history;    // scratch: [W, stride], [W - 1, stride]
  int64_t stride;
};

}  // namespace
}  // namespace linattn::cpu

#define LINATTN_WITHOUT_BF16
#define LINATTN_KERNELS "cpu/ops/causal-conv-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {

void run(const L2Norm& op, Cpu& cpu);

void run(const CausalConv& op, Cpu& cpu) {
  check_offsets(op.kName, op.sequences);
  if (op.state) check_slots(op.kName, op.sequences, op.state.shape[0]);
  const auto kernel = op.x.dtype == DType::kFloat32    ? LINATTN_DISPATCH(cpu.level, conv<float>)
                      : op.x.dtype == DType::kBFloat16 ? LINATTN_DISPATCH(cpu.level, conv<bfloat16>)
                                                       : LINATTN_DISPATCH(cpu.level, conv<float16>);
  constexpr int64_t kChannels = 512;  // of a task; a multiple of the lanes
  const int64_t C = op.x.shape[1], W = op.weight.shape[1], blocks = (C + kChannels - 1) / kChannels;
  const int64_t scratch = (2 * W - 1) * kChannels;
  float* memory = cpu.scratch_of<float>(static_cast<size_t>(scratch * cpu.pool->threads()));
  const auto* offsets = op.sequences.offsets.as<int32_t>();
  const auto* read_slots = op.sequences.read_slots.as<int32_t>();
  const auto* write_slots = op.sequences.write_slots.as<int32_t>();
  const auto bytes = static_cast<int64_t>(dtype_bytes(op.x.dtype));
  cpu.pool->run(op.sequences.rows * blocks, [&](int64_t task, int thread) {
    const int64_t n = task / blocks, c = task % blocks * kChannels;
    ConvBlock b{};
    b.W = static_cast<int>(W);
    b.width = static_cast<int>(std::min(kChannels, C - c));
    b.filters = C == 0 ? 0 : static_cast<int>(op.weight.shape[0] / C);
    b.channels = C;
    b.silu = op.silu;
    b.tokens = offsets[n + 1] - offsets[n];
    b.x_stride = op.x.stride0;
    b.out_stride = op.out.stride0;
    b.x = op.x.as<char>() + (offsets[n] * op.x.stride0 + c) * bytes;
    b.out = op.out.as<char>() + (offsets[n] * op.out.stride0 + c) * bytes;
    b.weight = op.weight.as<float>() + c * W;
    b.bias = op.bias ? op.bias.as<float>() + c : nullptr;
    if (op.state && read_slots[n] >= 0) b.source = op.state.row<float>(read_slots[n]) + c * (W - 1);
    if (op.state && write_slots[n] >= 0) b.target = op.state.row<float>(write_slots[n]) + c * (W - 1);
    b.stride = kChannels;
    b.weights = memory + thread * scratch;
    b.history = b.weights + W * kChannels;
    kernel(b);
  });
  if (op.norm_channels > 0) run(op.norm(), cpu);
}

}  // namespace linattn::cpu
