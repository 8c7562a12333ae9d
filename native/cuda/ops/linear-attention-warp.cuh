// Rows of a state in the registers of a warp: kRows x kWarp / kLanes of them, each over kLanes lanes, and what a token
// does to them. Nothing is shared between warps.
#pragma once
#include "cuda/device/prefetch.cuh"
#include "cuda/ops/linear-attention-recurrence.h"

namespace linattn::cuda::recurrence {

constexpr int kRows = 2;  // of a state, by lane

__device__ __forceinline__ int slot_in(int slot, FaultName name, int n, const Recurrence& x) {
  if (slot >= -1 && slot < x.sizes.slots) return slot;
  report(x.fault, FaultKind::kRange, name, n, slot, -1, x.sizes.slots);
  return -1;
}

// Four values as they lie in memory: made float32 where they are used, so that a load waits for none before it.
template <class T>
struct Four {
  uint32_t bits[sizeof(T)];

  __device__ __forceinline__ float operator[](int i) const {
    if constexpr (sizeof(T) == 4) {
      return __uint_as_float(bits[i]);
    } else {
      return as_float(T{static_cast<uint16_t>(bits[i / 2] >> (16 * (i % 2)))});
    }
  }
};

__device__ __forceinline__ uint32_t bits_of(float x) { return __float_as_uint(x); }
template <class T>
__device__ __forceinline__ uint32_t bits_of(T x) {
  return x.bits;
}

template <class T>
__device__ __forceinline__ Four<T> load_four(const T* from, bool aligned) {
  Four<T> four;
  if (aligned) {
    if constexpr (sizeof(T) == 4) {
      const auto words = *reinterpret_cast<const uint4*>(from);
      four.bits[0] = words.x;
      four.bits[1] = words.y;
      four.bits[2] = words.z;
      four.bits[3] = words.w;
    } else {
      const auto words = *reinterpret_cast<const uint2*>(from);
      four.bits[0] = words.x;
      four.bits[1] = words.y;
    }
  } else if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < 4; i++) four.bits[i] = bits_of(from[i]);
  } else {
#pragma unroll
    for (int i = 0; i < 2; i++) four.bits[i] = bits_of(from[2 * i]) | bits_of(from[2 * i + 1]) << 16;
  }
  return four;
}

// What one token brings. Of decays by channel a lane has a share: the groups of a warp make them for one another.
template <class T, LinearRule rule, bool channels, int kParts, int kDecays>
struct Token {
  Four<T> k[kParts], q[kParts];
  Four<T> a[rule == LinearRule::kLowRank ? kParts : 1], b[rule == LinearRule::kLowRank ? kParts : 1];
  Four<float> decay[channels ? kDecays : 1];  // the 16-bit ones in the first two words
  uint32_t row_decay[kRows];                  // only the first, but for a decay by value
  T v[kRows];
  float beta, divisor;
};

template <int kParts>
using State = float[kRows][kParts][4];

// sum[r] = row r . x, in every lane of the row.
template <int kLanes, int kParts, class T>
__device__ __forceinline__ void dots(const State<kParts>& s, const Four<T> (&x)[kParts], float (&sum)[kRows]) {
  float parts[kRows][4] = {};
#pragma unroll
  for (int j = 0; j < kParts; j++) {
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const float value = x[j][e];
#pragma unroll
      for (int r = 0; r < kRows; r++) parts[r][e] = fmaf(s[r][j][e], value, parts[r][e]);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; r++) sum[r] = (parts[r][0] + parts[r][1]) + (parts[r][2] + parts[r][3]);
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
#pragma unroll
    for (int r = 0; r < kRows; r++) sum[r] += __shfl_xor_sync(kFullMask, sum[r], offset);
  }
}

template <int kParts, class T>
__device__ __forceinline__ void add_product(State<kParts>& s, const float (&u)[kRows], const Four<T> (&x)[kParts]) {
#pragma unroll
  for (int j = 0; j < kParts; j++) {
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const float value = x[j][e];
#pragma unroll
      for (int r = 0; r < kRows; r++) s[r][j][e] = fmaf(u[r], value, s[r][j][e]);
    }
  }
}

// kAligned: all that Recurrence says is aligned is.
template <class T, LinearRule rule, bool channels, int kLanes, int kParts, bool kAligned>
struct WarpRows {
  static constexpr int kGroups = kWarp / kLanes;                    // rows of a state side by side
  static constexpr int kDecays = (kParts + kGroups - 1) / kGroups;  // parts that a group makes
  using OneToken = Token<T, rule, channels, kParts, kDecays>;

  const Recurrence& x;
  int h, row;  // of the lane: rows `row` and every kGroups-th after it
  int place;   // of the lane: columns (j * kLanes + place) * 4 + e

  __device__ __forceinline__ int row_of(int r) const { return row + r * kGroups; }
  __device__ __forceinline__ int column(int j) const { return (j * kLanes + place) * 4; }
  // Whether log_decay by channel or value is float32.
  __device__ __forceinline__ bool wide() const { return sizeof(T) == 4 || x.sizes.gate_dtype == DType::kFloat32; }

  // Parts `part`, `part` + apart and so on; zero where there is none.
  template <class U, int kCount>
  __device__ __forceinline__ void load_vector(Four<U> (&to)[kCount], const void* from, int64_t first, int part = 0,
                                              int apart = 1) const {
#pragma unroll
    for (int i = 0; i < kCount; i++) {
      const int at = column(part + i * apart);
      to[i] = Four<U>{};
      if (at < x.sizes.K) to[i] = load_four(static_cast<const U*>(from) + first + at, kAligned || x.aligned);
    }
  }

  __device__ __forceinline__ void load(OneToken& token, int64_t t) const {
    const LinearSizes& size = x.sizes;
    if (x.k.data) {
      load_vector(token.k, x.k.data, t * x.k.stride + k_head(size, h) * size.K);
      if constexpr (rule == LinearRule::kLowRank) {
        load_vector(token.a, x.a.data, t * x.a.stride + h * size.K);
        load_vector(token.b, x.b.data, t * x.b.stride + h * size.K);
      }
      if constexpr (rule == LinearRule::kDelta) {
        token.beta = static_cast<const float*>(x.beta.data)[t * x.beta.stride + h];
      }
      load_decay(token, t);
#pragma unroll
      for (int r = 0; r < kRows; r++) {
        token.v[r] = from_float<T>(1.0f);
        if (x.v.data && row_of(r) < size.V) {
          token.v[r] = static_cast<const T*>(x.v.data)[t * x.v.stride + v_head(size, h) * size.V + row_of(r)];
        }
      }
    }
    if (x.q.data) load_vector(token.q, x.q.data, t * x.q.stride + q_head(size, h, 0) * size.K);
    if (x.divisor) token.divisor = x.divisor[t * size.Ho + h * size.G];
  }

  __device__ __forceinline__ void load_decay(OneToken& token, int64_t t) const {
    const LinearSizes& size = x.sizes;
    const void* g = x.log_decay.data;
    const int64_t first = t * x.log_decay.stride;
    if constexpr (channels) {
      const int group = row % kGroups;
      if (wide()) {
        load_vector(token.decay, g, first + h * size.K, group, kGroups);
        return;
      }
      Four<T> narrow[kDecays];
      load_vector(narrow, g, first + h * size.K, group, kGroups);
#pragma unroll
      for (int i = 0; i < kDecays; i++) {
        token.decay[i].bits[0] = narrow[i].bits[0];
        token.decay[i].bits[1] = narrow[i].bits[1];
      }
    } else if (x.decay == LinearDecay::kValue) {
#pragma unroll
      for (int r = 0; r < kRows; r++) {
        token.row_decay[r] = 0;
        if (row_of(r) >= size.V) continue;
        const int64_t at = first + h * size.V + row_of(r);
        token.row_decay[r] = wide() ? static_cast<const uint32_t*>(g)[at] : bits_of(static_cast<const T*>(g)[at]);
      }
    } else if (x.decay != LinearDecay::kNone) {
      token.row_decay[0] = static_cast<const uint32_t*>(g)[first + h];
    }
  }

  // A number of log_decay by value.
  __device__ __forceinline__ float gate_of(uint32_t bits) const {
    if constexpr (sizeof(T) == 2) {
      if (!wide()) return as_float(T{static_cast<uint16_t>(bits)});
    }
    return __uint_as_float(bits);
  }

  __device__ __forceinline__ void decay(State<kParts>& s, const OneToken& token, bool fresh) const {
    if constexpr (channels) {
#pragma unroll
      for (int begin = 0; begin < kParts; begin += kGroups) {
        const Four<float>& own = token.decay[begin / kGroups];
        Four<T> narrow{};
        if constexpr (sizeof(T) == 2) narrow = {own.bits[0], own.bits[1]};
        float made[4];
#pragma unroll
        for (int e = 0; e < 4; e++) made[e] = fresh ? 0.0f : decay_of(wide() ? own[e] : narrow[e]);
#pragma unroll
        for (int j = begin; j < kParts && j < begin + kGroups; j++) {
#pragma unroll
          for (int e = 0; e < 4; e++) {
            const float d = kGroups == 1 ? made[e] : __shfl_sync(kFullMask, made[e], (j - begin) * kLanes + place);
#pragma unroll
            for (int r = 0; r < kRows; r++) s[r][j][e] *= d;
          }
        }
      }
    } else if (x.decay != LinearDecay::kNone) {
      const bool by_row = x.decay == LinearDecay::kValue;
      float d[kRows];
      d[0] = fresh ? 0.0f : decay_of(by_row ? gate_of(token.row_decay[0]) : __uint_as_float(token.row_decay[0]));
#pragma unroll
      for (int r = 1; r < kRows; r++) d[r] = !by_row || fresh ? d[0] : decay_of(gate_of(token.row_decay[r]));
#pragma unroll
      for (int r = 0; r < kRows; r++) {
#pragma unroll
        for (int j = 0; j < kParts; j++) {
#pragma unroll
          for (int e = 0; e < 4; e++) s[r][j][e] *= d[r];
        }
      }
    }
  }

  __device__ __forceinline__ void update(State<kParts>& s, const OneToken& token, bool fresh) const {
    float u[kRows], probed[kRows];
#pragma unroll
    for (int r = 0; r < kRows; r++) u[r] = as_float(token.v[r]);
    if constexpr (rule == LinearRule::kLowRank) dots<kLanes>(s, token.a, probed);
    decay(s, token, fresh);
    if constexpr (rule == LinearRule::kDelta) {
      dots<kLanes>(s, token.k, probed);
#pragma unroll
      for (int r = 0; r < kRows; r++) u[r] = token.beta * (u[r] - probed[r]);
    }
    if constexpr (rule == LinearRule::kLowRank) add_product(s, probed, token.b);
    add_product(s, u, token.k);
  }

  // Of output head h * G + i; q and the divisor are those of that head.
  __device__ __forceinline__ void output(const State<kParts>& s, const Four<T> (&q)[kParts], float divisor, int64_t t,
                                         int i) const {
    const LinearSizes& size = x.sizes;
    float sum[kRows];
    dots<kLanes>(s, q, sum);
    float mine = sum[0];  // lane r of a row's lanes stores row_of(r)
#pragma unroll
    for (int r = 1; r < kRows; r++) mine = place == r ? sum[r] : mine;
    if (place >= kRows || row_of(place) >= size.V) return;
    if (x.sums) {
      x.sums[t * size.Ho + h * size.G + i] = mine;
      return;
    }
    mine *= x.scale;
    if (x.divisor) mine /= divisor + x.eps;
    auto* out = static_cast<T*>(const_cast<void*>(x.out.data));
    out[t * x.out.stride + static_cast<int64_t>(h * size.G + i) * size.V + row_of(place)] = from_float<T>(mine);
  }

  // Of all output heads; the token's q and divisor give way to those of the last.
  __device__ __forceinline__ void outputs(const State<kParts>& s, OneToken& token, int64_t t) const {
    const LinearSizes& size = x.sizes;
    for (int i = 0;;) {
      output(s, token.q, token.divisor, t, i);
      if (++i == size.G) return;
      load_vector(token.q, x.q.data, t * x.q.stride + q_head(size, h, i) * size.K);
      if (x.divisor) token.divisor = x.divisor[t * size.Ho + h * size.G + i];
    }
  }

  __device__ __forceinline__ float* state_row(int slot, int r) const {
    const LinearSizes& size = x.sizes;
    return x.state + slot * x.slot_stride + (static_cast<int64_t>(h) * size.V + row_of(r)) * size.K;
  }

  // Each lane a line of 32 values.
  __device__ __forceinline__ void prefetch_state(int slot) const {
    constexpr int kLine = 32, kRowLines = kLanes * kParts * 4 / kLine;
    const int r = place / kRowLines, at = place % kRowLines * kLine;
    if (r < kRows && row_of(r) < x.sizes.V && at < x.sizes.K) prefetch(state_row(slot, r) + at);
  }

  __device__ __forceinline__ void load_state(State<kParts>& s, int slot) const {
#pragma unroll
    for (int r = 0; r < kRows; r++) {
#pragma unroll
      for (int j = 0; j < kParts; j++) {
        Four<float> four{};
        if (slot >= 0 && column(j) < x.sizes.K && row_of(r) < x.sizes.V) {
          four = load_four(state_row(slot, r) + column(j), kAligned || x.state_aligned);
        }
#pragma unroll
        for (int e = 0; e < 4; e++) s[r][j][e] = four[e];
      }
    }
  }

  __device__ __forceinline__ void store_state(const State<kParts>& s, int slot) const {
    if (slot < 0) return;
#pragma unroll
    for (int r = 0; r < kRows; r++) {
#pragma unroll
      for (int j = 0; j < kParts; j++) {
        if (column(j) >= x.sizes.K || row_of(r) >= x.sizes.V) continue;
        float* to = state_row(slot, r) + column(j);
        if (kAligned || x.state_aligned) {
          *reinterpret_cast<float4*>(to) = make_float4(s[r][j][0], s[r][j][1], s[r][j][2], s[r][j][3]);
        } else {
#pragma unroll
          for (int e = 0; e < 4; e++) to[e] = s[r][j][e];
        }
      }
    }
  }
};

}  // namespace linattn::cuda::recurrence
