// The third kernel of sample: where exactly top-k and top-p end, among the scores of the bins that the second one
// found, and the draw.
#include "cuda/device/launch.cuh"
#include "cuda/ops/sample-sums.cuh"

namespace linattn::cuda {
namespace {

constexpr int kDigitBits = 8;
static_assert(1 << kDigitBits <= kRoom && kRoom <= kListed);

// The logits at the edges of a row's filters: listed in shared memory, or, when there are too many for the list, found
// again in the whole row. get(i): whether there is an i-th one of `count`.
struct InList {
  const Listed* list;
  int count;

  __device__ __forceinline__ bool get(int i, Listed& one) const {
    one = list[i];
    return true;
  }
};

__device__ __forceinline__ bool at_edge(const SampleState& state, int bin) {
  return (bin >= state.first_edge && bin <= state.last_edge) || bin == state.k_bin;
}

struct InRow {
  const SampleRow& r;
  const SampleState& state;
  Weighing weighing;
  int count;

  __device__ __forceinline__ bool get(int id, Listed& one) const {
    const float score = r.score(id);
    one = listed(order_of(score), id);
    return score > -INFINITY && at_edge(state, weighing.bin(score));
  }
};

// body(one) for those of this thread. Threads side by side take logits that lie apart, as a rule of different tiles.
template <class Edges, class Body>
__device__ __forceinline__ void for_edges(const Edges& edges, Body body) {
  const int each = (edges.count + kWarp - 1) / kWarp, apart = static_cast<int>(blockDim.x) / kWarp;
  const int first = static_cast<int>(threadIdx.x) % kWarp * each, end = min(first + each, edges.count);
#pragma unroll 1
  for (int i = first + static_cast<int>(threadIdx.x) / kWarp; i < end; i += apart) {
    Listed one;
    if (edges.get(i, one)) body(one);
  }
}

// Every thread gets the sum of all.
static __device__ LINATTN_NO_INLINE Sum total_of(Sum own, Sum* shared) { return block_total(own, shared); }

// Both become what any thread has of them.
static __device__ LINATTN_NO_INLINE void unite(Sum& ones, Sum& zeros, Sum* shared) {
  __syncthreads();
  if (threadIdx.x < 2) shared[threadIdx.x] = 0;
  __syncthreads();
#pragma unroll 1
  for (int i = 0; i < 4; i++) {
    auto word = static_cast<unsigned>((i < 2 ? ones : zeros) >> (i % 2 * 32));
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) word |= __shfl_xor_sync(kFullMask, word, offset);
    if (threadIdx.x % kWarp == 0) atomicOr(reinterpret_cast<unsigned*>(shared) + i, word);
  }
  __syncthreads();
  ones = shared[0];
  zeros = shared[1];
}

// What those from `least` on in bins [first, last] count: one each, or their weight.
struct EdgeWeights {
  Weighing weighing;
  int first, last;
  Listed least;
  bool counted;

  __device__ __forceinline__ Sum of(Listed one) const {
    const float score = score_of(order_in(one));
    const int bin = weighing.bin(score);
    if (bin < first || bin > last || one < least) return 0;
    return counted ? 1 : weighing.fixed(weighing.weight(score));
  }
};

// The one at which the sum of weights, begun with `before` and taken from the greatest down, reaches `target`: digit by
// digit, until a warp has a lane for each that is left. `room`: kRoomPlaces.
template <class Edges>
__device__ __forceinline__ Listed select(const Edges& edges, const EdgeWeights& weights, Sum before, Sum target,
                                         Sum* room, Sum* shared) {
  __shared__ Listed few[kWarp];
  __shared__ int few_count;
  // Digits that all share are known.
  Listed ones = 0, zeros = 0;
  for_edges(edges, [&](Listed one) {
    if (weights.of(one) == 0) return;
    ones |= one;
    zeros |= ~one;
  });
  unite(ones, zeros, shared);
  int shift = kIdBits + 33 - __clzll(static_cast<long long>(ones & zeros));
  Listed prefix = ones >> shift;
  while (shift > 0) {
    const int above = shift;
    shift = max(0, shift - kDigitBits);
    const int digits = 1 << (above - shift);
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < digits; i += static_cast<int>(blockDim.x)) room[sum_place(i)] = 0;
    if (threadIdx.x == 0) few_count = 0;
    __syncthreads();
    for_edges(edges, [&](Listed one) {
      const Sum weight = one >> above == prefix ? weights.of(one) : 0;
      const int digit = static_cast<int>(one >> shift & static_cast<Sum>(digits - 1));
      if (weight != 0) add_halves(room[sum_place(digits - 1 - digit)], weight);
    });
    running_sums(room, digits, shared);
    target = min(max(target, before + 1), before + room[sum_place(digits - 1)]);
    const int found = first_reaching(room, digits, target - before);
    before += sum_before(room, found);
    prefix = prefix << (above - shift) | static_cast<Sum>(digits - 1 - found);
    for_edges(edges, [&](Listed one) {
      if (one >> shift != prefix || weights.of(one) == 0) return;
      const int place = atomicAdd(&few_count, 1);
      if (place < kWarp) few[place] = one;
    });
    __syncthreads();
    const int left = few_count;
    if (left <= kWarp) {
      const int lane = static_cast<int>(threadIdx.x) % kWarp;
      const Listed mine = lane < left ? few[lane] : 0;
      const Sum weight = lane < left ? weights.of(mine) : 0;
#pragma unroll 1
      for (int i = 0; i < left; i++) {
        const Sum other = __shfl_sync(kFullMask, weight, i);
        if (few[i] > mine) before += other;
      }
      const unsigned reached = __ballot_sync(kFullMask, before < target && before + weight >= target);
      return few[max(__ffs(static_cast<int>(reached)) - 1, 0)];
    }
    __syncthreads();
  }
  return prefix;
}

// The last one that the filters keep.
template <class Edges>
__device__ __forceinline__ Listed find_cut(const Edges& edges, const SampleState& state, const Weighing& weighing,
                                           float top_p, Sum* room, Sum* shared) {
  EdgeWeights weights{weighing, state.k_bin, state.k_bin, 0, true};
  Sum before = 0, target = static_cast<Sum>(state.k_left), total = state.total;
#pragma unroll 1
  for (int filter = 0; filter < 2; filter++) {
    if (filter == 0 ? state.k_bin < 0 : !(top_p < 1)) continue;
    if (filter == 1) {
      before = state.below_edge;
      target = top_p_target(top_p, total, before + 1, ~Sum{0});
      weights.first = state.first_edge;
      weights.last = state.last_edge;
      weights.counted = false;
    }
    weights.least = select(edges, weights, before, target, room, shared);
    weights.counted = false;
    if (filter == 1) continue;
    weights.least &= ~static_cast<Listed>(INT32_MAX);  // equal scores stay
    Sum own = 0;
    for_edges(edges, [&](Listed one) { own += weights.of(one); });
    total = state.below_k + total_of(own, shared);
  }
  return weights.least;
}

// Where the filters of a row end, and the draw: the share that the position's random number takes of all weights.
template <class Edges>
__device__ __forceinline__ void end_row(const Edges& edges, const SampleView& x, const SampleRow& r,
                                        const SampleState& state, Sum* room) {
  __shared__ Sum shared[kWarp];
  const Weighing weighing{state.greatest, x.unit};
  const Listed cut = find_cut(edges, state, weighing, r.params.top_p, room, shared);
  const auto weight_of = [&](float score) -> Sum {
    const float weight = weighing.weight(score);
    return weight >= r.params.min_p ? weighing.fixed(weight) : 0;
  };
  const int tile_size = static_cast<int>(blockDim.x) * kLogits;
  Sum* by_tile = x.sums + static_cast<int64_t>(r.row) * x.sum_places;
  if (x.tiles <= kRoom) {
    __syncthreads();
    gather(by_tile, x.sum_places, room);
    by_tile = room;
  }
  for_edges(edges, [&](Listed one) {
    const Sum weight = one >= cut ? weight_of(score_of(order_in(one))) : 0;
    if (weight != 0) add_halves(by_tile[sum_place(id_in(one) / tile_size)], weight);
  });
  running_sums(by_tile, x.tiles, shared);
  const Sum total = by_tile[sum_place(x.tiles - 1)];
  const auto position = static_cast<uint32_t>(x.positions[r.row]);
  const auto random = philox({position, 0, 0, 0}, {r.int_params.seed_low, r.int_params.seed_high});
  const Sum share = Sum{random[0] >> 5} << 26 | random[1] >> 6;  // of 2^53
  const Sum target = (__umul64hi(share, total) << 11 | (share * total) >> 53) + 1;
  const int tile = first_reaching(by_tile, x.tiles, target);
  const Sum before = sum_before(by_tile, tile);
  __syncthreads();
  const int first = tile * tile_size;
  r.for_logits<false>(r.load(x, tile), tile, [&](int id, float logit) {
    const float score = r.score(id, logit);
    room[sum_place(id - first)] = score > -INFINITY && listed(order_of(score), id) >= cut ? weight_of(score) : 0;
  });
  const int count = min(tile_size, x.vocab - first);
  running_sums(room, count, shared);
  if (threadIdx.x != 0) return;
  const int token = first + first_reaching(room, count, target - before);
  x.token[r.row] = token;
  x.logprob[r.row] = static_cast<float>(static_cast<double>(r.logits[token]) - state.log_total);
}

// A logit below this has a score below the edges: most logits need no closer look.
__device__ float least_logit(const SampleRow& r, const SampleState& state, float greatest) {
  const int bin = max(state.last_edge, state.k_bin);
  if (bin >= kBins - 1 || (r.seen && r.params.repetition_penalty < 1)) return -INFINITY;
  const float reach = __uint_as_float(__float_as_uint(1.0f) + (static_cast<unsigned>(bin + 1) << 15)) - 1.0f;
  const float least = (greatest - reach - (fabsf(greatest) + reach) * 1e-5f) * r.params.temperature;
  return least - fabsf(least) * 1e-5f - 1e-30f;
}

static __device__ LINATTN_NO_INLINE void end_unlisted(const SampleView& x, int row, Sum* room) {
  const SampleState& state = x.states[row];
  const SampleRow r(x, row, 0, x.tiles);
  end_row(InRow{r, state, Weighing{state.greatest, x.unit}, x.vocab}, x, r, state, room);
}

// When all edges of a row are listed.
__device__ __forceinline__ void end_listed(const SampleView& x, const SampleRow& r, const SampleState& state) {
  const unsigned all = *static_cast<const volatile unsigned*>(&state.listed);
  Listed* const list = dynamic_shared<Listed>();
  Sum* const room = list + kListed;
  if (all > kListed) return end_unlisted(x, r.row, room);
  gather(x.list + static_cast<int64_t>(r.row) * kListed, static_cast<int>(all), list);
  end_row(InList{list, static_cast<int>(all)}, x, r, state, room);
}

// The edges of the tiles of a block that has many: each warp has its place in the list of the row, if that has room.
__device__ __forceinline__ unsigned place_in_list(SampleState& state, unsigned own, bool& fits) {
  unsigned through = own, start = 0;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const unsigned lower = __shfl_up_sync(kFullMask, through, offset);
    if (static_cast<int>(threadIdx.x % kWarp) >= offset) through += lower;
  }
  const unsigned count = __shfl_sync(kFullMask, through, kWarp - 1);
  if (threadIdx.x % kWarp == 0 && count > 0) start = atomicAdd(&state.listed, count);
  start = __shfl_sync(kFullMask, start, 0);
  fits = start + count <= kListed;
  return start + through - own;
}

template <bool kMany>
__global__ void __launch_bounds__(kSampleThreads) resolve(const __grid_constant__ SampleView x) {
  __shared__ TileSums<kMany> tile_sums;
  wait_for_inputs();
  SampleState& state = x.states[blockIdx.x / static_cast<unsigned>(x.blocks)];
  if (!state.open) return;
  const SampleRow r(x);
  const Weighing weighing{state.greatest, x.unit};
  Sum* const sums = x.sums + static_cast<int64_t>(r.row) * x.sum_places;
  Listed* const row_list = x.list + static_cast<int64_t>(r.row) * kListed;
  tile_sums.clear();

  // What lies above the edges counts for the draw; the edges are listed.
  const float least = least_logit(r, state, weighing.greatest);
  const auto add_above = [&](Sum& above, float score, int bin) {
    if (bin >= state.first_edge) return;
    const float weight = weighing.weight(score);
    if (weight >= r.params.min_p) above += weighing.fixed(weight);
  };
  const auto for_scores = [&](const TileLogits& held, int tile, auto body) {
    r.for_logits<kMany>(held, tile, [&](int id, float logit) {
      if (logit < least) return;
      const float score = r.score(id, logit);
      if (score > -INFINITY) body(id, score, weighing.bin(score));
    });
  };
  Sum above = 0;
  if constexpr (kMany) {
    for (int tile = r.first_tile; tile < r.end_tile; tile++, above = 0) {
      const TileLogits held = r.load(x, tile);
      unsigned own = 0;
      for_scores(held, tile, [&](int, float score, int bin) {
        if (at_edge(state, bin)) {
          own++;
        } else {
          add_above(above, score, bin);
        }
      });
      tile_sums.add(r, tile, above, sums);
      bool fits = false;
      Listed* list = row_list + place_in_list(state, own, fits);
      if (own == 0 || !fits) continue;
      for_scores(held, tile, [&](int id, float score, int bin) {
        if (at_edge(state, bin)) *list++ = listed(order_of(score), id);
      });
    }
    tile_sums.put(r, sums);
  } else {
    __shared__ unsigned count, start;
    Listed* const list = dynamic_shared<Listed>();
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    for_scores(r.load(x, r.first_tile), r.first_tile, [&](int id, float score, int bin) {
      if (at_edge(state, bin)) {
        list[atomicAdd(&count, 1u)] = listed(order_of(score), id);
      } else {
        add_above(above, score, bin);
      }
    });
    tile_sums.add(r, r.first_tile, above, sums);
    __syncthreads();
    if (threadIdx.x == 0 && count > 0) start = atomicAdd(&state.listed, count);
    __syncthreads();
    if (count > 0 && start + count <= kListed) {
      for (unsigned i = threadIdx.x; i < count; i += blockDim.x) row_list[start + i] = list[i];
    }
    if (last_of_row(&state.arrived[1], x.blocks)) end_listed(x, r, state);
  }
}

// A block a row.
__global__ void __launch_bounds__(kSampleThreads) end_listed_rows(const __grid_constant__ SampleView x) {
  wait_for_inputs();
  const auto row = static_cast<int>(blockIdx.x);
  const SampleState& state = x.states[row];
  if (state.open) end_listed(x, SampleRow(x, row, 0, x.tiles), state);
}

}  // namespace

void resolve_edges(Cuda& cuda, dim3 grid, dim3 threads, unsigned rows, const SampleView& x) {
  constexpr size_t kRoomBytes = kListed * sizeof(Listed) + kRoomPlaces * sizeof(Sum);
  if (x.block_tiles == 1) return launch_early(cuda, resolve<false>, grid, threads, kRoomBytes, x);
  launch_early(cuda, resolve<true>, grid, threads, 0, x);
  launch_early(cuda, end_listed_rows, rows, threads, kRoomBytes, x);
}

}  // namespace linattn::cuda
