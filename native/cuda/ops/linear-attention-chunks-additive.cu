// Scans of the additive rule.
#include "cuda/ops/linear-attention-chunks-scan.cuh"

namespace linattn::cuda::chunks {
namespace {

template <int K>
void scan_width(const Call& call, bool channels, bool key_sum, Cuda& cuda) {
  constexpr LinearRule rule = LinearRule::kAdditive;
  if (key_sum) {
    if (channels) return launch_scan<ScanTraits<K, 16, 4, rule, true, ScanKind::kKeySum>>(call, cuda);
    return launch_scan<ScanTraits<K, 16, 4, rule, false, ScanKind::kKeySum>>(call, cuda);
  }
  if (channels) return scan<K, rule, true>(call, cuda);
  scan<K, rule, false>(call, cuda);
}

}  // namespace

void scan_additive(const Call& call, bool channels, bool key_sum, Cuda& cuda) {
  if (call.sizes.K == 64) return scan_width<64>(call, channels, key_sum, cuda);
  if (call.sizes.K == 128) return scan_width<128>(call, channels, key_sum, cuda);
  scan_width<256>(call, channels, key_sum, cuda);
}

}  // namespace linattn::cuda::chunks
