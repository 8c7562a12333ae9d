#include "ops/rms-norm.h"

#include "cpu/row-tasks.h"
#include "cpu/simd.h"

namespace linattn::cpu {
namespace {

template <class T>
struct RmsNormGroup {
  const T *x, *gate, *residual;  // the last two may be null
  const float* weight;
  T *out, *sum;
  int64_t size;
  double eps;
  float branch_scale;
  bool zero_centred;
  GateOrder gate_order;
  ActivationKind gate_activation;
};

template <class T>
T* at(const Tensor& tensor, int64_t row, int64_t offset) {
  return tensor ? tensor.row<T>(row) + offset : nullptr;
}

}  // namespace
}  // namespace linattn::cpu

#define LINATTN_KERNELS "cpu/ops/rms-norm-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {

void run(const RmsNorm& op, Cpu& cpu) {
  const int64_t width = op.x.inner(), weights = op.weight.shape[0];
  auto* values = cpu.scratch_of<float>(static_cast<size_t>(cpu.pool->threads() * op.group_size));
  with_float_type(op.x.dtype, [&]<class T>(T) {
    const auto kernel = LINATTN_DISPATCH(cpu.level, rms_norm<T>);
    for_rows(cpu, op.x.shape[0], width, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t row = begin; row < end; row++) {
        for (int64_t o = 0; o < width; o += op.group_size) {
          kernel({at<const T>(op.x, row, o), at<const T>(op.gate, row, o), at<const T>(op.residual, row, o),
                  op.weight.as<float>() + o % weights, at<T>(op.out, row, o), at<T>(op.sum, row, o), op.group_size,
                  op.eps, op.branch_scale, op.zero_centred, op.gate_order, op.gate_activation},
                 values + thread * op.group_size);
        }
      }
    });
  });
}

}  // namespace linattn::cpu
