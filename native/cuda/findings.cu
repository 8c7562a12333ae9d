#include "cuda/device/launch.cuh"
#include "cuda/findings.h"
#include "cuda/op-functions.h"

namespace linattn::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    take(Fault* faults, int count, Fault* told, int32_t* to, const int32_t* from, int words) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < words; i += kThreads) to[i] = from[i];
  for (int op = thread; op < count; op += kThreads) {
    if (faults[op].kind == 0) continue;
    told[op] = faults[op];
    faults[op].kind = 0;
  }
}

}  // namespace

void tell(Cuda& cuda, Fault* told, const WordCopy& copy) {
  launch(cuda, take, dim3(1), dim3(kThreads), 0, cuda.faults, kOpCount, told, static_cast<int32_t*>(copy.to),
         static_cast<const int32_t*>(copy.from), static_cast<int>(copy.bytes / sizeof(int32_t)));
}

}  // namespace linattn::cuda
