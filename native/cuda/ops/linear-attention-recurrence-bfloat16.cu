#include "cuda/ops/linear-attention-recurrence.cuh"

namespace linattn::cuda {

template void run_recurrence<bfloat16>(const Recurrence& x, LinearRule rule, bool step, Cuda& cuda);

}  // namespace linattn::cuda
