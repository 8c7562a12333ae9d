#include "cuda/device/elementwise.cuh"
#include "ops/convert.h"

namespace linattn::cuda {
namespace {

template <class From, class To>
struct ConvertBody {
  StridedRows<const From> x;
  StridedRows<To> out;

  template <int N>
  __device__ __forceinline__ void apply(int64_t row, int64_t column) const {
    float values[N];
    load(x.at(row, column), values);
    store(out.at(row, column), values);
  }
};

}  // namespace

void run(const Convert& op, Cuda& cuda) {
  const Tensor& out = op.into ? op.into : op.out;
  for_float(op.x.dtype, [&](auto from) {
    for_float(out.dtype, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      const ConvertBody<From, To> body{StridedRows<const From>(op.x), StridedRows<To>(out)};
      elementwise<16 / std::max(sizeof(From), sizeof(To))>(cuda, {op.x, out}, body);
    });
  });
}

}  // namespace linattn::cuda
