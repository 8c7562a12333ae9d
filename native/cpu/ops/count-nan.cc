#include "ops/count-nan.h"

#include <algorithm>
#include <limits>

#include "cpu/cpu.h"

namespace linattn::cpu {
namespace {

constexpr int64_t kPiece = int64_t{1} << 18;

// By their bits: a value is NaN when it is above infinity without its sign.
template <class Bits>
int64_t count(const Bits* x, int64_t begin, int64_t end, Bits infinity) {
  const Bits magnitude = std::numeric_limits<Bits>::max() >> 1;
  int64_t nans = 0;
  for (int64_t i = begin; i < end; i++) nans += (x[i] & magnitude) > infinity;
  return nans;
}

}  // namespace

void run(const CountNan& op, Cpu& cpu) {
  const int64_t size = op.x.size();
  std::atomic<int64_t> nans{0};
  cpu.pool->run((size + kPiece - 1) / kPiece, [&](int64_t piece, int) {
    const int64_t begin = piece * kPiece;
    const int64_t end = std::min(size, begin + kPiece);
    int64_t found = 0;
    if (op.x.dtype == DType::kFloat32) found = count<uint32_t>(op.x.as<uint32_t>(), begin, end, 0x7f800000u);
    if (op.x.dtype == DType::kBFloat16) found = count<uint16_t>(op.x.as<uint16_t>(), begin, end, 0x7f80);
    if (op.x.dtype == DType::kFloat16) found = count<uint16_t>(op.x.as<uint16_t>(), begin, end, 0x7c00);
    if (found) nans.fetch_add(found, std::memory_order_relaxed);
  });
  *op.out.as<int32_t>() = static_cast<int32_t>(std::min<int64_t>(nans.load(), std::numeric_limits<int32_t>::max()));
}

}  // namespace linattn::cpu
