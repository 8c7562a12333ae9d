// The third kernel of sample: where exactly top-k and top-p end, among the scores of the bins that the second one
// found, and the draw.
#include "cuda/device/launch.cuh"
#include "cuda/ops/sample.cuh"

namespace linattn::cuda {
namespace {

constexpr int kOrderBits = 32, kDigitBits = 8, kDigits = 1 << kDigitBits;

// What is left of a row. Of scores of the least order kept, those up to `last_tie` stay.
struct Cut {
  uint32_t order = 0;
  int last_tie = INT32_MAX;

  __device__ bool keeps(uint32_t of, int id) const { return of > order || (of == order && id <= last_tie); }
};

// The scores at the edges: listed, or, when there are too many for the list, found again in the whole row.
struct Edges {
  const SampleView& x;
  const SampleRow& r;
  const SampleState& state;
  Weighing weighing;
  unsigned count;
  const Listed* list;  // in shared memory

  __device__ bool has(int bin) const {
    return (bin >= state.first_edge && bin <= state.last_edge) || bin == state.k_bin;
  }
  // body(order, id, bin)
  template <class Body>
  __device__ void for_each(Body body) const {
    const int threads = static_cast<int>(blockDim.x);
    if (count <= kListed) {
      for (int i = static_cast<int>(threadIdx.x); i < static_cast<int>(count); i += threads) {
        const auto order = static_cast<uint32_t>(list[i] >> 32);
        body(order, static_cast<int>(list[i]), weighing.bin(score_of(order)));
      }
      return;
    }
    for (int id = static_cast<int>(threadIdx.x); id < x.vocab; id += threads) {
      const float score = r.score(id);
      const int bin = weighing.bin(score);
      if (score > -INFINITY && has(bin)) body(order_of(score), id, bin);
    }
  }
};

// The order at which the sum of weight_of(order, bin), taken from the greatest score down, reaches `target`, digit by
// digit; `before` becomes the sum over greater scores.
template <class WeightOf>
__device__ uint32_t select_order(Finder& finder, const Edges& edges, Sum target, Sum& before, WeightOf weight_of) {
  __shared__ Sum digits[kDigits];
  // Digits that all orders share are known: whoever adds to the same sum waits for the others.
  uint32_t greatest = 0, least = 0;  // least: of the complements
  edges.for_each([&](uint32_t of, int, int bin) {
    if (weight_of(of, bin) == 0) return;
    greatest = max(greatest, of);
    least = max(least, ~of);
  });
  const auto larger = [](Sum a, Sum b) { return max(a, b); };
  greatest = static_cast<uint32_t>(block_reduce(Sum{greatest}, finder.shared, larger));
  least = ~static_cast<uint32_t>(block_reduce(Sum{least}, finder.shared, larger));
  int shift = least > greatest ? 0 : kOrderBits - __clz(static_cast<int>(greatest ^ least));
  Sum order = Sum{greatest} >> shift;
  while (shift > 0) {
    const int above = shift;
    shift = max(0, shift - kDigitBits);
    for (int i = static_cast<int>(threadIdx.x); i < kDigits; i += static_cast<int>(blockDim.x)) digits[i] = 0;
    __syncthreads();
    edges.for_each([&](uint32_t of, int, int bin) {
      if (Sum{of} >> above != order) return;
      const Sum weight = weight_of(of, bin);
      if (weight != 0) atomicAdd(&digits[of >> shift & ((1u << (above - shift)) - 1)], weight);
    });
    __syncthreads();
    const int found = find_reaching(finder, kDigits, target, before, [&](int i) { return digits[kDigits - 1 - i]; });
    order = order << (above - shift) | static_cast<Sum>(kDigits - 1 - found);
    __syncthreads();
  }
  return static_cast<uint32_t>(order);
}

__device__ Cut find_cut(Finder& finder, const Edges& edges, Sum* room) {
  const SampleView& x = edges.x;
  const SampleState& state = edges.state;
  const Weighing& weighing = edges.weighing;
  const auto fixed = [&](uint32_t order) { return weighing.fixed(weighing.weight(score_of(order))); };
  Cut cut;
  Sum total = state.total;
  if (state.k_bin >= 0) {
    Sum before = 0;
    cut.order = select_order(finder, edges, static_cast<Sum>(state.k_left), before,
                             [&](uint32_t, int bin) { return bin == state.k_bin ? Sum{1} : Sum{0}; });
    Sum own = 0;
    edges.for_each([&](uint32_t order, int, int bin) {
      if (bin == state.k_bin && order >= cut.order) own += fixed(order);
    });
    total = state.below_k + block_total(own, finder.shared);
  }
  const float top_p = edges.r.params.top_p;
  if (!(top_p < 1)) return cut;

  const Sum target = top_p_target(top_p, total);
  const uint32_t least = cut.order;
  Sum before = state.below_edge;
  cut.order = select_order(finder, edges, target, before, [&](uint32_t order, int bin) {
    return order >= least && bin >= state.first_edge && bin <= state.last_edge ? fixed(order) : Sum{0};
  });
  // Of equal scores as many as it takes, and one at least.
  const Sum weight = fixed(cut.order);
  const Sum wanted = before >= target || weight == 0 ? 1 : (target - before + weight - 1) / weight;
  Sum* ties = x.ties + static_cast<int64_t>(edges.r.row) * x.tiles;
  for (int t = static_cast<int>(threadIdx.x); t < x.tiles; t += static_cast<int>(blockDim.x)) ties[t] = 0;
  __syncthreads();
  const int tile_size = static_cast<int>(blockDim.x) * kLogits;
  Sum own = 0;
  edges.for_each([&](uint32_t order, int id, int) {
    if (order != cut.order) return;
    own++;
    atomicAdd(&ties[id / tile_size], Sum{1});
  });
  if (block_total(own, finder.shared) > wanted) {
    cut.last_tie = find_id(finder, x, edges.r, ties, wanted - 1, room,
                           [&](int id, float logit) { return Sum{order_of(edges.r.score(id, logit)) == cut.order}; });
  }
  return cut;
}

// A logit below this has a score below the edges: most logits need no closer look.
__device__ float least_logit(const SampleRow& r, const SampleState& state, float greatest) {
  const int bin = max(state.last_edge, state.k_bin);
  if (bin >= kBins - 1 || (r.seen && r.params.repetition_penalty < 1)) return -INFINITY;
  const float reach = __uint_as_float(__float_as_uint(1.0f) + (static_cast<unsigned>(bin + 1) << 15)) - 1.0f;
  const float least = (greatest - reach - (fabsf(greatest) + reach) * 1e-5f) * r.params.temperature;
  return least - fabsf(least) * 1e-5f - 1e-30f;
}

// When all edges of a row are listed: where the filters end, and the draw.
__device__ void end_listed(Finder& finder, const SampleView& x, const SampleRow& r, const SampleState& state) {
  const Weighing weighing{state.greatest, x.unit};
  const unsigned all = *static_cast<const volatile unsigned*>(&state.listed);
  Listed* const list = dynamic_shared<Listed>();
  if (all <= kListed) {
    gather(x.list + static_cast<int64_t>(r.row) * kListed, static_cast<int>(all),
           [&](int i, Listed one) { list[i] = one; });
  }
  const Edges edges{x, r, state, weighing, all, list};
  Sum* const room = list + kListed;
  const Cut cut = find_cut(finder, edges, room);
  const auto weight_of = [&](float score) -> Sum {
    const float weight = weighing.weight(score);
    return weight >= r.params.min_p ? weighing.fixed(weight) : 0;
  };
  const int tile_size = static_cast<int>(blockDim.x) * kLogits;
  Sum* const sums = x.sums + static_cast<int64_t>(r.row) * x.tiles;
  edges.for_each([&](uint32_t order, int id, int) {
    if (!cut.keeps(order, id)) return;
    const Sum weight = weight_of(score_of(order));
    if (weight != 0) atomicAdd(&sums[id / tile_size], weight);
  });
  __threadfence();
  __syncthreads();
  draw(finder, x, r, state.log_total, room, [&](int id, float logit) -> Sum {
    const float score = r.score(id, logit);
    return score > -INFINITY && cut.keeps(order_of(score), id) ? weight_of(score) : 0;
  });
}

// Where a thread's `own` entries begin in the list of its row, which has room for them or not; all threads of the
// block, or where a block has many tiles of the warp.
template <bool kMany>
__device__ __forceinline__ unsigned place_in_list(SampleState& state, unsigned own, bool& fits) {
  unsigned start = 0, count = 0, before = 0;
  if constexpr (kMany) {
    unsigned through = own;
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const unsigned lower = __shfl_up_sync(kFullMask, through, offset);
      if (static_cast<int>(threadIdx.x % kWarp) >= offset) through += lower;
    }
    count = __shfl_sync(kFullMask, through, kWarp - 1);
    before = through - own;
    if (threadIdx.x % kWarp == 0 && count > 0) start = atomicAdd(&state.listed, count);
    start = __shfl_sync(kFullMask, start, 0);
  } else {
    __shared__ unsigned shared_count, shared_start;
    if (threadIdx.x == 0) shared_count = 0;
    __syncthreads();
    before = own > 0 ? atomicAdd(&shared_count, own) : 0;
    __syncthreads();
    if (threadIdx.x == 0) shared_start = shared_count > 0 ? atomicAdd(&state.listed, shared_count) : 0;
    __syncthreads();
    start = shared_start;
    count = shared_count;
  }
  fits = start + count <= kListed;
  return start + before;
}

template <bool kMany>
__global__ void __launch_bounds__(kSampleThreads) resolve(SampleView x) {
  __shared__ Finder finder;
  __shared__ TileSums<kMany> tile_sums;
  wait_for_inputs();
  SampleState& state = x.states[blockIdx.x / static_cast<unsigned>(x.blocks)];
  if (!state.open) return;
  const SampleRow r(x);
  const Weighing weighing{state.greatest, x.unit};
  const Edges bins{x, r, state, weighing, 0, nullptr};
  Sum* const sums = x.sums + static_cast<int64_t>(r.row) * x.tiles;
  tile_sums.clear();

  // What lies above the edges counts for the draw; the edges are listed.
  const float least = least_logit(r, state, weighing.greatest);
  for (int tile = r.first_tile; tile < r.end_tile; tile++) {
    const TileLogits held = r.load(x, tile);
    const auto for_scores = [&](auto body) {
      r.for_logits<kMany>(held, tile, [&](int id, float logit) {
        if (logit < least) return;
        const float score = r.score(id, logit);
        if (score > -INFINITY) body(id, score, weighing.bin(score));
      });
    };
    Sum above = 0;
    unsigned own = 0;
    for_scores([&](int, float score, int bin) {
      if (bins.has(bin)) {
        own++;
      } else if (bin < state.first_edge) {
        const float weight = weighing.weight(score);
        if (weight >= r.params.min_p) above += weighing.fixed(weight);
      }
    });
    tile_sums.add(r, tile, above, sums);
    bool fits = false;
    Listed* list = x.list + static_cast<int64_t>(r.row) * kListed + place_in_list<kMany>(state, own, fits);
    if (own == 0 || !fits) continue;
    for_scores([&](int id, float score, int bin) {
      if (bins.has(bin)) *list++ = listed(order_of(score), id);
    });
  }
  tile_sums.put(r, sums);
  if constexpr (!kMany) {
    if (last_of_row(finder, &state.arrived[1], x.blocks)) end_listed(finder, x, r, state);
  }
}

// A block a row.
__global__ void __launch_bounds__(kSampleThreads) end_listed_rows(SampleView x) {
  __shared__ Finder finder;
  wait_for_inputs();
  const auto row = static_cast<int>(blockIdx.x);
  const SampleState& state = x.states[row];
  if (!state.open) return;
  end_listed(finder, x, SampleRow(x, row, 0, x.tiles), state);
}

}  // namespace

void resolve_edges(Cuda& cuda, dim3 grid, dim3 threads, unsigned rows, const SampleView& x) {
  constexpr size_t kRoom = kListed * sizeof(Listed) + kTilePlaces * sizeof(Sum);
  if (x.block_tiles == 1) return launch_early(cuda, resolve<false>, grid, threads, kRoom, x);
  launch_early(cuda, resolve<true>, grid, threads, 0, x);
  launch_early(cuda, end_listed_rows, rows, threads, kRoom, x);
}

}  // namespace linattn::cuda
