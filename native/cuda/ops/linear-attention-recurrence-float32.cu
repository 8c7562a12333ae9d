#include "cuda/ops/linear-attention-recurrence.cuh"

namespace linattn::cuda {

template void run_recurrence<float>(const Recurrence& x, LinearRule rule, bool step, Cuda& cuda);

}  // namespace linattn::cuda
