// Scans of the delta rule.
#include "cuda/ops/linear-attention-chunks-scan.cuh"

namespace linattn::cuda::chunks {

void scan_delta(const Call& call, bool channels, Cuda& cuda) {
  constexpr LinearRule rule = LinearRule::kDelta;
  const int K = kernel_width(call.sizes.K, rule, channels);
  if (K == 64) return channels ? scan<64, rule, true>(call, cuda) : scan<64, rule, false>(call, cuda);
  if (K == 128) return channels ? scan<128, rule, true>(call, cuda) : scan<128, rule, false>(call, cuda);
  scan<256, rule, false>(call, cuda);
}

}  // namespace linattn::cuda::chunks
