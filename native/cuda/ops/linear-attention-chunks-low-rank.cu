// Scans of the low-rank rule.
#include "cuda/ops/linear-attention-chunks-scan.cuh"

namespace linattn::cuda::chunks {

void scan_low_rank(const Call& call, Cuda& cuda) {
  if (kernel_width(call.sizes.K, LinearRule::kLowRank, true) == 64)
    return scan<64, LinearRule::kLowRank, true>(call, cuda);
  scan<128, LinearRule::kLowRank, true>(call, cuda);
}

}  // namespace linattn::cuda::chunks
