// Rotary position embedding as device code.
#pragma once
#include "cuda/device/sequences.cuh"
#include "ops/rope.h"

namespace linattn::cuda {

__device__ __forceinline__ void check_offsets(const SequencesView& s, Fault* fault) {
  for (int n = static_cast<int>(threadIdx.x); n < s.rows; n += static_cast<int>(blockDim.x)) {
    const int begin = s.offsets[n], end = s.offsets[n + 1];
    if (begin >= 0 && end >= begin && end <= s.tokens) continue;
    report(fault, FaultKind::kBetween, FaultName::kOffsets, n + 1, end, begin, s.tokens);
  }
}

// Of an angle within a quarter of pi, to 1 ulp: polynomials fitted for the smallest relative error. cosf and sinf would
// bring the code that reduces any angle.
__device__ __forceinline__ void small_turn(float angle, float& cosine, float& sine) {
  const float square = angle * angle;
  const float s = fmaf(fmaf(-0.00019514957966748625f, square, 0.00833215843886137f), square, -0.16666655242443085f);
  const float c = fmaf(fmaf(2.4432785721728578e-05f, square, -0.0013887312961742282f), square, 0.04166664555668831f);
  sine = fmaf(s * square, angle, angle);
  cosine = fmaf(fmaf(c, square, -0.5f), square, 1.0f);
}

// The angle is the float32 product that Hugging Face takes. It is reduced in double, for float32 has too few bits for
// the angles of long contexts.
__device__ __forceinline__ void turn_of(int position, float frequency, float& cosine, float& sine) {
  const double angle = static_cast<double>(__fmul_rn(static_cast<float>(position), frequency));
  const double quarters = rint(angle * 0.63661977236758134308);  // 2 / pi
  const double rest = fma(-quarters, 6.12323399573676604e-17, fma(-quarters, 1.57079632679489661923, angle));
  float c, s;
  small_turn(static_cast<float>(rest), c, s);
  const int quarter = static_cast<int>(static_cast<int64_t>(quarters) & 3);
  cosine = quarter == 0 ? c : quarter == 1 ? -s : quarter == 2 ? -c : s;
  sine = quarter == 0 ? s : quarter == 1 ? c : quarter == 2 ? -s : -c;
}

__device__ __forceinline__ void turn_pair(float& first, float& second, float cosine, float sine) {
  const float before = first;
  first = fmaf(-second, sine, before * cosine);
  second = fmaf(second, cosine, before * sine);
}

__device__ __forceinline__ int position_of(const SequencesView& s, int token) {
  const int row = s.rows > 0 ? row_of_token(s, token) : -1;
  return row < 0 ? 0 : s.positions[row] + token - s.offsets[row];
}

}  // namespace linattn::cuda
