#include "cuda/device/launch.cuh"
#include "cuda/findings.h"
#include "cuda/op-functions.h"

namespace linattn::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    take(Fault* faults, int count, Finding* finding, int32_t* to, const int32_t* from, int words) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < words; i += kThreads) to[i] = from[i];
  if (thread >= kWarp) return;
  for (int first = 0; first < count; first += kWarp) {
    const int op = first + thread;
    const bool reported = op < count && faults[op].kind != 0;
    const unsigned all = __ballot_sync(kFullMask, reported);
    if (all == 0) continue;
    if (reported && (all & ((1u << thread) - 1)) == 0) {
      *finding = {faults[op], op};
      faults[op].kind = 0;
    }
    return;
  }
}

}  // namespace

void tell(Cuda& cuda, Finding* finding, const WordCopy& copy) {
  launch(cuda, take, dim3(1), dim3(kThreads), 0, cuda.faults, kOpCount, finding, static_cast<int32_t*>(copy.to),
         static_cast<const int32_t*>(copy.from), static_cast<int>(copy.bytes / sizeof(int32_t)));
}

}  // namespace linattn::cuda
