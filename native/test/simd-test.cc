// The simd layer against double precision, at every level that this machine has.
#include "cpu/simd.h"

#define LINATTN_KERNELS "test/simd-test-kernels.inc"
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cpu/for-each-level.inc"

namespace linattn::cpu {
namespace {

int failures = 0;

void expect(bool holds, Level level, const char* what, double x, double got, double wanted) {
  if (holds) return;
  if (failures++ < 20) std::printf("FAIL %s: %s(%.9g) = %.9g, wanted %.9g\n", level_name(level), what, x, got, wanted);
}

// Distance in units of the last place of the wanted float32.
double ulps(double got, double wanted) {
  if (std::isnan(wanted)) return std::isnan(got) ? 0 : INFINITY;
  const float nearest = static_cast<float>(wanted);
  if (std::isinf(nearest)) return got == nearest ? 0 : INFINITY;
  if (std::isnan(got) || std::isinf(got)) return INFINITY;
  int exponent;
  std::frexp(wanted, &exponent);
  return std::fabs(got - wanted) / std::ldexp(1.0, std::max(exponent - 24, -149));
}

double exact(int function, double x) {
  switch (function) {
    case 0:
      return std::exp(x);
    case 1:
      return 1 / (1 + std::exp(-x));
    case 2:
      return x / (1 + std::exp(-x));
    case 3:
      return (x > 0 ? x : 0) + std::log1p(std::exp(-std::fabs(x)));
    case 4:
      return std::tanh(x);
    case 5:
      return std::sqrt(x);
    case 6:
      return 1 / std::sqrt(x);
    case 7:
      return -x;
    default:
      return x + 0.25;
  }
}

struct Case {
  const char* name;
  double limit, low, high;  // in ulp; the range to sample
};
constexpr Case kCases[] = {{"exp", 2, -110, 90},      {"sigmoid", 4, -86, 100}, {"silu", 5, -86, 100},
                           {"softplus", 4, -86, 100}, {"tanh", 4, -12, 12},     {"sqrt", 0.51, 0, 1e9},
                           {"rsqrt", 1.6, 1e-9, 1e9}, {"negate", 0, -5, 5},     {"max + min", 1, -5, 5}};

void test_functions(Level level) {
  constexpr int kCount = 200003;
  std::vector<float> x(kCount), y(kCount), alone(1);
  for (int function = 0; function < 9; function++) {
    const Case& c = kCases[function];
    for (int i = 0; i < kCount; i++) {
      x[i] = static_cast<float>(c.low + (c.high - c.low) * i / (kCount - 1));
      if (i % 3 == 0 && c.low < 0) x[i] = static_cast<float>(x[i] * 1e-3);
      if (i % 7 == 0 && c.low < 0) x[i] = static_cast<float>(x[i] * 1e-6);
    }
    LINATTN_DISPATCH(level, apply)(function, x.data(), y.data(), kCount);
    double worst = 0;
    for (int i = 0; i < kCount; i++) {
      const double wanted = exact(function, x[i]);
      worst = std::max(worst, ulps(y[i], wanted));
      expect(ulps(y[i], wanted) <= c.limit, level, c.name, x[i], y[i], wanted);
    }
    for (int i = 0; i < kCount; i += 997) {  // a lane does not depend on its neighbours
      LINATTN_DISPATCH(level, apply)(function, &x[i], alone.data(), 1);
      expect(alone[0] == y[i], level, "one lane", x[i], alone[0], y[i]);
    }
    std::printf("%-10s %-9s worst error %.3f ulp\n", level_name(level), c.name, worst);
  }
}

void test_edges(Level level) {
  const float inf = INFINITY, nan = NAN;
  const float x[] = {-inf, -1e30f, -104.5f, -88.0f, -0.0f, 0.0f, 88.7f, 88.8f, 1e30f, inf, nan, 1e-40f};
  constexpr int kCount = sizeof x / sizeof *x;
  float y[kCount];
  for (const int function : {0, 1, 3, 4}) {
    LINATTN_DISPATCH(level, apply)(function, x, y, kCount);
    for (int i = 0; i < kCount; i++) {
      double wanted = exact(function, x[i]);
      if (function == 3 && x[i] == inf) wanted = inf;
      expect(ulps(y[i], wanted) <= 4, level, kCases[function].name, x[i], y[i], wanted);
    }
  }
}

// Every 16-bit pattern widens as the scalar code does, and float32 values round as double arithmetic says.
template <class T>
void test_half(Level level, const char* name, T (*narrow)(float), int mantissa_bits, int least_exponent) {
  std::vector<T> all(65536), back(65536);
  std::vector<float> wide(65536);
  for (int i = 0; i < 65536; i++) all[i].bits = static_cast<uint16_t>(i);
  LINATTN_DISPATCH(level, widen_all<T>)(all.data(), wide.data(), 65536);
  LINATTN_DISPATCH(level, copy<T>)(wide.data(), back.data(), 65536);
  for (int i = 0; i < 65536; i++) {
    if (std::isnan(wide[i])) {
      expect(std::isnan(to_float(back[i])) && std::isnan(to_float(all[i])), level, name, i, to_float(back[i]), wide[i]);
    } else {
      expect(back[i].bits == i && to_float(all[i]) == wide[i], level, name, i, back[i].bits, i);
    }
  }
  const double limit = to_float(T{static_cast<uint16_t>(mantissa_bits == 7 ? 0x7f7f : 0x7bff)});  // largest finite
  std::vector<float> x;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 20011)
    x.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  for (int i = 0; i < 0x7000; i++) {  // ties, and one bit on either side
    const float low = to_float(T{static_cast<uint16_t>(i)}), high = to_float(T{static_cast<uint16_t>(i + 1)});
    const float middle = static_cast<float>((static_cast<double>(low) + high) / 2);
    for (const float v : {middle, std::nextafterf(middle, INFINITY), std::nextafterf(middle, -INFINITY)})
      x.push_back(v);
  }
  std::vector<T> y(x.size());
  LINATTN_DISPATCH(level, copy<T>)(x.data(), y.data(), static_cast<int>(x.size()));
  for (size_t i = 0; i < x.size(); i++) {
    const double value = x[i];
    if (std::isnan(value)) {
      expect(std::isnan(to_float(y[i])) && std::isnan(to_float(narrow(x[i]))), level, name, value, to_float(y[i]),
             value);
      continue;
    }
    int exponent;
    std::frexp(value, &exponent);
    const double step = std::ldexp(1.0, std::max(exponent - 1, least_exponent) - mantissa_bits);
    double wanted = std::isinf(value) ? value : std::nearbyint(value / step) * step;
    if (std::fabs(wanted) > limit) wanted = std::copysign(INFINITY, value);
    expect(to_float(y[i]) == wanted, level, name, value, to_float(y[i]), wanted);
    expect(narrow(x[i]).bits == y[i].bits, level, "scalar rounding", value, to_float(narrow(x[i])), wanted);
  }
}

// Reads and writes of n elements that end at the last byte of a page whose next page may not be touched.
template <class T>
void test_bounds(Level level) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  auto* memory =
      static_cast<char*>(mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (memory == MAP_FAILED || mprotect(memory + page, page, PROT_NONE) != 0) std::abort();
  for (int n = 0; n <= 16; n++) {
    T* end = reinterpret_cast<T*>(memory + page);
    float x[16], y[16];
    for (int i = 0; i < 16; i++) x[i] = static_cast<float>(i + 1);
    T before = *(end - n - 1);
    LINATTN_DISPATCH(level, copy<T>)(x, end - n, n);
    LINATTN_DISPATCH(level, widen_all<T>)(end - n, y, n);
    for (int i = 0; i < n; i++) expect(y[i] == x[i], level, "bounds", n, y[i], x[i]);
    expect(std::memcmp(&before, end - n - 1, sizeof(T)) == 0, level, "bounds before", n, 0, 0);
  }
  munmap(memory, 2 * page);
}

void test_reduce(Level level) {
  float x[48], y[64];
  for (int i = 0; i < 48; i++) x[i] = static_cast<float>((i * 37) % 48 - 20);
  const int lanes = LINATTN_DISPATCH(level, reduce)(x, y);
  double total = 0, largest = -INFINITY;
  for (int i = 0; i < lanes; i++) total += x[i], largest = std::max<double>(largest, x[i]);
  expect(y[0] == total, level, "sum", lanes, y[0], total);
  expect(y[1] == largest, level, "hmax", lanes, y[1], largest);
  expect(y[2] == x[0], level, "first", lanes, y[2], x[0]);
  for (int i = 0; i < lanes; i++) {
    const double product = static_cast<double>(x[i]) * x[lanes + i], c = x[2 * lanes + i];
    expect(y[3 + i] == product + c, level, "fma", i, y[3 + i], product + c);
    expect(y[3 + lanes + i] == c - product, level, "fnma", i, y[3 + lanes + i], c - product);
  }
}

void test_transpose(Level level) {
  float x[256], y[256];
  for (int i = 0; i < 256; i++) x[i] = static_cast<float>(i);
  const int lanes = LINATTN_DISPATCH(level, transpose_all)(x, y);
  for (int i = 0; i < lanes * lanes; i++) {
    const float wanted = x[i % lanes * lanes + i / lanes];
    expect(y[i] == wanted, level, "transpose", i, y[i], wanted);
  }
}

void test_sums(Level level) {
  float x[256], y[32];
  for (int i = 0; i < 256; i++) x[i] = std::sin(static_cast<float>(i)) * static_cast<float>(1 << (i % 11));
  const int lanes = LINATTN_DISPATCH(level, sums)(x, y);
  for (int i = 0; i < lanes; i++) expect(y[i] == y[lanes + i], level, "sum_quads", i, y[lanes + i], y[i]);
}

}  // namespace
}  // namespace linattn::cpu

int main() {
  using namespace linattn;
  using namespace linattn::cpu;
  for (const Level level : {Level::kBaseline, Level::kAvx2, Level::kAvx512, Level::kAvx512Bf16, Level::kNeon}) {
    const Level best = best_level();
    if (level != Level::kBaseline && level != best && (best == Level::kNeon || level > best)) continue;
    test_functions(level);
    test_edges(level);
    test_half<bfloat16>(level, "bfloat16", &to_bfloat16, 7, -126);
    test_half<float16>(level, "float16", &to_float16, 10, -14);
    test_bounds<float>(level);
    test_bounds<bfloat16>(level);
    test_bounds<float16>(level);
    test_reduce(level);
    test_transpose(level);
    test_sums(level);
  }
  std::printf(failures ? "%d failures\n" : "simd: all checks passed\n", failures);
  return failures ? 1 : 0;
}
