// Every 16-bit float to float32 and back, and the float32 values around the middle of every two neighbours.
#include "core/half.h"

#include <cmath>
#include <limits>

#include "test/check.h"

namespace linattn {
namespace {

// From the definition of the formats: sign, exponent and fraction bits.
double value_of(uint16_t bits, int exponent_bits) {
  const int fraction_bits = 15 - exponent_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits >> fraction_bits) & ((1 << exponent_bits) - 1);
  const int fraction = bits & ((1 << fraction_bits) - 1);
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) {
    return fraction ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  }
  const double significand = fraction + (exponent ? 1 << fraction_bits : 0);
  return sign * std::ldexp(significand, (exponent ? exponent : 1) - bias - fraction_bits);
}

template <class Half, class Round>
void check_format(int exponent_bits, Round round) {
  for (uint32_t i = 0; i < 0x10000; i++) {
    const Half half{static_cast<uint16_t>(i)};
    const double wanted = value_of(half.bits, exponent_bits);
    const float got = to_float(half);
    if (std::isnan(wanted)) {
      CHECK(std::isnan(got) && std::isnan(to_float(round(got))));
      continue;
    }
    CHECK(static_cast<double>(got) == wanted && std::signbit(got) == std::signbit(wanted));
    CHECK(round(got).bits == half.bits);
    const auto next = static_cast<uint16_t>(i + 1);
    const double above = value_of(next, exponent_bits);
    if (!(std::isfinite(wanted) && std::isfinite(above)) || (i & 0x7fff) == 0x7fff) continue;
    const auto middle = static_cast<float>((wanted + above) / 2);
    const float away = half.bits & 0x8000 ? -INFINITY : INFINITY;
    CHECK(round(middle).bits == (i & 1 ? next : i));
    CHECK(round(std::nextafter(middle, 0.0f)).bits == i);
    CHECK(round(std::nextafter(middle, away)).bits == next);
  }
  CHECK(std::isinf(to_float(round(std::numeric_limits<float>::max()))));
}

}  // namespace
}  // namespace linattn

int main() {
  using namespace linattn;
  check_format<float16>(5, [](float x) { return to_float16(x); });
  check_format<bfloat16>(8, [](float x) { return to_bfloat16(x); });
  return report("half");
}
