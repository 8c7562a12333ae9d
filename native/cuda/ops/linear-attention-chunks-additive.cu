// Scans of the additive rule.
#include "cuda/ops/linear-attention-chunks-scan.cuh"

namespace linattn::cuda::chunks {

void scan_additive(const Call& call, bool channels, Cuda& cuda) {
  constexpr LinearRule rule = LinearRule::kAdditive;
  const int K = kernel_width(call.sizes.K, rule, channels);
  if (K == 64) return channels ? scan<64, rule, true>(call, cuda) : scan<64, rule, false>(call, cuda);
  if (K == 128) return channels ? scan<128, rule, true>(call, cuda) : scan<128, rule, false>(call, cuda);
  if (K == 192) return scan<192, rule, false>(call, cuda);
  channels ? scan<256, rule, true>(call, cuda) : scan<256, rule, false>(call, cuda);
}

}  // namespace linattn::cuda::chunks
