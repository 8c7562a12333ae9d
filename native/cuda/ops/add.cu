#include "cuda/device/elementwise.cuh"
#include "ops/add.h"

namespace linattn::cuda {
namespace {

template <class T>
struct AddBody {
  StridedRows<const T> a, b;        // a may be absent: 0
  StridedRows<const float> scales;  // [H] with a stride of 0, or [T, H]; may be absent
  StridedRows<T> out;
  float scale;
  int width;  // of a head

  template <int N>
  __device__ __forceinline__ void apply(int64_t row, int64_t column) const {
    float sums[N] = {}, values[N];
    if (a.data) load(a.at(row, column), sums);
    load(b.at(row, column), values);
#pragma unroll
    for (int i = 0; i < N; i++) {
      const float factor = scales.data ? *scales.at(row, (column + i) / width) : scale;
      sums[i] = fmaf(values[i], factor, sums[i]);
    }
    store(out.at(row, column), sums);
  }
};

}  // namespace

void run(const Add& op, Cuda& cuda) {
  for_float(op.b.dtype, [&](auto t) {
    using T = decltype(t);
    AddBody<T> body{StridedRows<const T>(op.a),
                    StridedRows<const T>(op.b),
                    StridedRows<const float>(op.scales),
                    StridedRows<T>(op.out),
                    op.scale,
                    1};
    if (op.scales) {
      if (op.scales.rank == 1) body.scales.stride = 0;
      body.width = static_cast<int>(op.b.shape[2]);
    }
    const Tensor& a = op.a ? op.a : op.b;
    elementwise<16 / sizeof(T)>(cuda, {op.out, a, op.b}, body, static_cast<bool>(op.scales));
  });
}

}  // namespace linattn::cuda
