// Products of few rows on sm_90: a warp has the copy engine bring 8 rows of weights, or a share of their inputs, into
// shared memory. The first ones are on their way before the kernels in front have ended, so that the memory does not
// rest while short kernels follow each other.
#include <algorithm>

#include "cuda/device/bulk.cuh"
#include "cuda/ops/matmul-few-rows-mma.cuh"
#include "cuda/ops/product-inputs.cuh"

namespace linattn::cuda {
namespace few_rows {
namespace {

constexpr int kMostWarps = 16;
constexpr int kFewWarps = 12;             // beside a block of no more, one of the attention of a token may fit
constexpr int kBuffer = 512;              // inputs of a warp's buffer, at most
constexpr int kLeastShared = 160 * 1024;  // bytes a block can have for them; with less, 99 KB on sm_120, half as many
constexpr int kLeastInputs = 128;         // of a split

// Which part of the weights a warp takes: it depends on the weights alone, so that a row has the same bits in any
// company.
struct Plan {
  int tiles, splits;  // of all; of a tile's inputs
  int warps, blocks;
  int inputs, piece;  // of a split, and of these at a time
  int pitch;          // bytes between rows in shared memory
  int slots, groups;  // tiles of a block at a time; so many times as many there are
  unsigned share;     // warp * share >> 16 is warp / splits
  bool whole;         // pieces are all of the same size, a multiple of kLeastInputs
  unsigned* tickets;  // with which blocks take groups; null: each has its own

  Plan(const Product& p, const Cuda& cuda) {
    const auto depth = static_cast<int>(p.depth), processors = cuda.properties.multiprocessors;
    const auto ceil_of = [](int64_t a, int64_t b) { return static_cast<int>(ceil_div(a, b)); };
    tiles = ceil_of(p.outputs, kTileOutputs);
    const int most = std::clamp(processors * kMostWarps / tiles, 1, kMostWarps);
    splits = std::min(most, std::max(1, depth / kLeastInputs));
    whole = depth % kLeastInputs == 0;
    while (whole && depth % (splits * kLeastInputs) != 0) splits--;
    inputs = ceil_of(ceil_of(depth, splits), kStepInputs) * kStepInputs;
    splits = ceil_of(depth, inputs);
    piece = std::min(inputs, cuda.properties.shared_memory < kLeastShared ? kBuffer / 2 : kBuffer);
    while (whole && inputs % piece != 0) piece -= kLeastInputs;
    const int by_block = kMostWarps / splits, rounds = ceil_of(tiles, int64_t{processors} * by_block);
    slots = ceil_of(tiles, int64_t{processors} * rounds);
    share = static_cast<unsigned>(ceil_of(1 << 16, splits));
    warps = slots * splits;
    groups = ceil_of(tiles, slots);
    blocks = std::min(processors, groups);
    // Multiprocessors differ by half in how much of the memory's rate they get.
    tickets = groups >= 4 * blocks ? cuda.tickets : nullptr;
    pitch = piece * 2;
    pitch += pitch % 128 == 64 ? 0 : 64;  // neighbouring rows lie in different halves of the banks
  }
  // Whether a warp has one piece of one tile.
  bool once() const { return whole && piece == inputs && tiles <= blocks * slots; }
  __host__ __device__ int weight_bytes() const { return warps * kTileOutputs * pitch; }
};

// Steps whose activations are held at once: even, see Chains.
template <class X, bool full>
constexpr int kHeldSteps = full || sizeof(X) > 2 ? 2 : 4;

// Registers leave room for a block of the next product beside one of this: its weights are then on their way.
// kWholeSteps: at once, where pieces are whole; 0: where they are not. What bounds a product whose weights are
// there already is how many instructions it takes, and how many there are.
template <class O, bool full, int kWholeSteps>
__global__ void __launch_bounds__(kMostWarps* kWarp, 2)
    stream(const __grid_constant__ Product p, const __grid_constant__ Plan plan) {
  using W = typename O::W;
  using X = typename O::X;
  constexpr int kHalves = full ? 2 : 1;
  constexpr bool kWhole = kWholeSteps > 0;
  constexpr int kSteps = kWhole ? kWholeSteps : kHeldSteps<X, full>;
  __shared__ ByteBarrier barriers[kMostWarps];
  __shared__ float parts[2][kMostWarps][2 * kHalves][kWarp];
  __shared__ int groups[4];  // of the rounds, in turns: a round's is there two rounds before
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, group = lane / 4, place = lane % 4;
  const int slot = static_cast<int>(static_cast<unsigned>(warp) * plan.share >> 16);
  const int split = warp - slot * plan.splits, first = split * plan.inputs;
  const int end = kWhole ? first + plan.inputs : min(first + plan.inputs, static_cast<int>(p.depth));
  char* const buffer = dynamic_shared<char>() + warp * kTileOutputs * plan.pitch;
  ByteBarrier& barrier = barriers[warp];
  const auto fetch = [&](int tile, int k) {
    if (tile >= plan.tiles) return;
    const uint32_t bytes = (kWhole ? plan.piece : min(plan.piece, end - k)) * static_cast<uint32_t>(sizeof(W));
    if (lane == 0) barrier.expect(kTileOutputs * bytes);
    __syncwarp();
    if (lane >= kTileOutputs) return;
    const W* const from = static_cast<const W*>(p.weights) + (int64_t{tile} * kTileOutputs + lane) * p.depth + k;
    copy_bulk_once(buffer + lane * plan.pitch, from, bytes, barrier);
  };
  int tile = static_cast<int>(blockIdx.x) * plan.slots + slot;
  let_next_begin();
  if (lane == 0) barrier.init();
  __syncwarp();
  fetch(tile, first);  // no kernel that may still run writes weights (packWeight)
  if (threadIdx.x == 0) groups[1] = static_cast<int>(blockIdx.x + gridDim.x);
  __syncthreads();
  wait_for_inputs();

  const X* const low_row = input_row<X>(p, group);
  const X* const high_row = input_row<X>(p, group + 8);
  const char* const weights = buffer + group * plan.pitch + place * kWidth * static_cast<int>(sizeof(W));
  uint32_t phase = 0;
  // Every warp makes as many rounds as the first one, for the barrier of the block.
  for (int turn = 0; tile - slot < plan.tiles; turn = (turn + 1) % 4) {
    const bool present = tile < plan.tiles;
    const auto next_tile = [&] { return groups[(turn + 1) % 4] * plan.slots + slot; };
    if (threadIdx.x == 0) {
      // A ticket a round, as many as there are groups: then the counter is 0 again.
      const auto blocks = static_cast<int>(gridDim.x);
      groups[(turn + 2) % 4] = plan.tickets ? 2 * blocks + static_cast<int>(atomicInc(plan.tickets, plan.groups - 1u))
                                            : groups[(turn + 1) % 4] + blocks;
    }
    Chains chains;
    for (int k0 = first; present && k0 < end; k0 += plan.piece) {
      const int piece_end = kWhole ? k0 + plan.piece : min(k0 + plan.piece, end);
#pragma unroll 1
      for (int step0 = k0; step0 < piece_end; step0 += kSteps * kStepInputs) {
        Pack<X, kWidth> held[kSteps][kHalves];
        const char* const step_weights = weights + (step0 - k0) * static_cast<int>(sizeof(W));
#pragma unroll
        for (int s = 0; s < kSteps; s++) {
          if constexpr (kWhole) {
            const int k = step0 + place * kWidth;
            held[s][0] = *reinterpret_cast<const Pack<X, kWidth>*>(low_row + k + s * kStepInputs);
            if constexpr (full) {
              held[s][1] = *reinterpret_cast<const Pack<X, kWidth>*>(high_row + k + s * kStepInputs);
            }
            continue;
          }
          const int k = step0 + s * kStepInputs + place * kWidth;
          load_inputs<true>(held[s][0], low_row, k, piece_end);
          if constexpr (full) load_inputs<true>(held[s][1], high_row, k, piece_end);
        }
        if (step0 == k0) barrier.wait(phase++ % 2);
#pragma unroll
        for (int s = 0; s < kSteps; s++) {
          const int k = step0 + s * kStepInputs;
          if (!kWhole && k >= piece_end) break;
          uint32_t low[1][4], high[1][4] = {};
          input_operands<O>(low, held[s][0]);
          if constexpr (full) input_operands<O>(high, held[s][1]);
          uint4 words = *reinterpret_cast<const uint4*>(step_weights + s * kStepInputs * static_cast<int>(sizeof(W)));
          if (!kWhole && k + place * kWidth >= piece_end) words = make_uint4(0, 0, 0, 0);
          chains.multiply<O>(s, low[0], high[0], {words.x, words.y, words.z, words.w});
        }
      }
      __syncwarp();
      if (piece_end < end) {
        fetch(tile, piece_end);
      } else {
        fetch(next_tile(), first);
      }
    }
    float sums[2 * kHalves];
#pragma unroll
    for (int i = 0; i < 2 * kHalves; i++) sums[i] = chains.total(i);
    if (plan.splits > 1) {
#pragma unroll
      for (int i = 0; i < 2 * kHalves; i++) parts[turn % 2][warp][i][lane] = sums[i];
    }
    __syncthreads();
    if (present && split == 0) {
#pragma unroll 4
      for (int other = 1; other < plan.splits; other++) {
#pragma unroll
        for (int i = 0; i < 2 * kHalves; i++) sums[i] += parts[turn % 2][warp + other][i][lane];
      }
#pragma unroll
      for (int i = 0; i < 2 * kHalves; i++) {
        store_output<X>(p, group + i / 2 * 8, int64_t{tile} * kTileOutputs + 2 * place + i % 2, sums[i]);
      }
    }
    tile = next_tile();
  }
}

// One row, whose inputs each block makes (product-inputs.cuh); a warp has one piece of one tile. Until the inputs are
// made, a warp asks for its piece when that of an earlier warp is there: the loads of the inputs are not to wait behind
// all weights.
template <class T, class Inputs>
__global__ void __launch_bounds__(kMostWarps* kWarp, 2)
    made_row(const __grid_constant__ Product p, const __grid_constant__ Plan plan,
             const __grid_constant__ Inputs inputs) {
  __shared__ ByteBarrier barriers[kMostWarps];
  __shared__ ByteBarrier met, row_made;
  __shared__ float parts[kMostWarps][kTileOutputs], shared[kWarp];
  __shared__ int arguments;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int slot = static_cast<int>(static_cast<unsigned>(warp) * plan.share >> 16);
  const int first = (warp - slot * plan.splits) * plan.inputs;
  const int tile = static_cast<int>(blockIdx.x) * plan.slots + slot;
  const bool present = tile < plan.tiles;
  char* const buffer = dynamic_shared<char>() + warp * kTileOutputs * plan.pitch;
  T* const row = reinterpret_cast<T*>(dynamic_shared<char>() + plan.weight_bytes());
  ByteBarrier& barrier = barriers[warp];
  let_next_begin();
  const int makers = inputs.makers();
  const auto bytes = static_cast<uint32_t>(plan.inputs) * static_cast<uint32_t>(sizeof(T));
  const int at_once = max(kBulkAtOnce / static_cast<int>(kTileOutputs * bytes), 1);
  const auto fetch = [&] {  // no kernel that may still run writes weights (packWeight)
    if (!present) return;
    if (lane == 0) barrier.expect(kTileOutputs * bytes);
    __syncwarp();
    const T* const from = static_cast<const T*>(p.weights) + (int64_t{tile} * kTileOutputs + lane) * p.depth + first;
    if (lane < kTileOutputs) copy_bulk_once(buffer + lane * plan.pitch, from, bytes, barrier);
  };
  if (warp == 0) fetch_arguments(&arguments, p, plan, inputs);
  if (lane == 0) barrier.init();
  if (threadIdx.x == 0) {
    met.init(static_cast<uint32_t>(makers));
    row_made.init(static_cast<uint32_t>(makers * kWarp));
  }
  __syncwarp();
  if (warp < at_once) fetch();
  inputs.prepare();
  __syncthreads();
  if (warp >= at_once && present) {
    wait_for_either(barriers[warp - at_once], row_made);
    fetch();
  }

  // Only the makers read what kernels in front write; the others wait for the makers.
  if (warp < makers) {
    wait_for_inputs();
    inputs.make(row, shared, met);
    row_made.arrive_each();
  }
  row_made.wait(0);
  if (present) {
    barrier.wait(0);
    const float2 sums =
        multiply_row(buffer + row_place(lane, plan.pitch), row + first, plan.inputs / kStepInputs, lane);
    if (lane < 4) *reinterpret_cast<float2*>(&parts[warp][2 * lane]) = sums;
  }
  __syncthreads();
  const int own = static_cast<int>(threadIdx.x) / kTileOutputs, o = threadIdx.x % kTileOutputs;
  if (own >= plan.slots) return;
  const float* const own_parts = &parts[own * plan.splits][o];
  float sum = own_parts[0];
#pragma unroll 4
  for (int split = 1; split < plan.splits; split++) sum += own_parts[split * kTileOutputs];
  const int own_tile = static_cast<int>(blockIdx.x) * plan.slots + own;
  if (own_tile < plan.tiles) store_output<T>(p, 0, int64_t{own_tile} * kTileOutputs + o, sum);
}

template <class O, bool full>
auto kernel_of(const Plan& plan) {
  constexpr int kSteps = kHeldSteps<typename O::X, full>;
  if (!plan.whole) return stream<O, full, 0>;
  return stream<O, full, kSteps>;
}

template <class O>
void launch_stream(const Product& p, Cuda& cuda) {
  const Plan plan(p, cuda);
  const auto kernel = p.rows > 8 ? kernel_of<O, true>(plan) : kernel_of<O, false>(plan);
  launch_early(cuda, kernel, static_cast<unsigned>(plan.blocks), static_cast<unsigned>(plan.warps * kWarp),
               static_cast<size_t>(plan.weight_bytes()), p, plan);
}

bool takes_made_row(const Product& p, const Cuda& cuda) {
  return p.rows == 1 && cuda.properties.capability >= 90 && p.layout.dtype == p.x_type && dtype_bytes(p.x_type) == 2 &&
         aligned_rows(p, kWidth);
}

// Runs inputs_of(T{}), which makes the inputs of type T of one row, and the product. Operands of type T alone, of which
// a warp has one piece.
template <class InputsOf>
bool launch_made(const Product& p, const InputsOf& inputs_of, Cuda& cuda) {
  if (!takes_made_row(p, cuda)) return false;
  const Plan plan(p, cuda);
  bool serves = false;
  for_float(p.x_type, [&](auto t) {
    using T = decltype(t);
    if constexpr (sizeof(T) == 2) {
      const auto inputs = inputs_of(t);
      using Inputs = std::decay_t<decltype(inputs)>;
      serves = plan.once() && inputs.fit(plan.warps * kWarp);
      if (!serves) return;
      launch_as(LaunchHow{.early = true, .all_shared = plan.warps <= kFewWarps}, cuda, made_row<T, Inputs>,
                static_cast<unsigned>(plan.blocks), static_cast<unsigned>(plan.warps * kWarp),
                static_cast<size_t>(plan.weight_bytes()) + static_cast<size_t>(p.depth) * sizeof(T), p, plan, inputs);
    }
  });
  return serves;
}

}  // namespace
}  // namespace few_rows

bool multiply_few_rows_bulk(const Product& p, Cuda& cuda) {
  using namespace few_rows;
  if (cuda.properties.capability < 90 || !aligned_rows(p, kWidth) || dtype_bytes(p.layout.dtype) != 2) return false;
  if (p.layout.dtype == DType::kFloat16) {
    if (p.x_type != DType::kFloat16) return false;
    launch_stream<Operands<float16, float16, float16>>(p, cuda);
  } else {
    for_float(p.x_type, [&](auto x) { launch_stream<Operands<decltype(x), bfloat16, bfloat16>>(p, cuda); });
  }
  return true;
}

int inputs_of_warp(const Product& p, const Cuda& cuda) {
  if (!few_rows::takes_made_row(p, cuda)) return 0;
  const few_rows::Plan plan(p, cuda);
  return plan.whole ? plan.inputs : 0;
}

bool multiply_normed(const RmsNorm& norm, const Product& p, Cuda& cuda) {
  const auto launch = [&]<NormParts kParts>() {
    return few_rows::launch_made(
        p, [&](auto t) { return NormedInputs<decltype(t), kParts>{rms_norm_groups<decltype(t)>(norm)}; }, cuda);
  };
  return norm.gate ? launch.template operator()<NormParts::kGateAfter>()
                   : launch.template operator()<NormParts::kResidual>();
}

bool multiply_gated(const GatedActivation& gated, const Product& p, Cuda& cuda) {
  return few_rows::launch_made(p, [&](auto t) { return GatedInputs<decltype(t)>(gated); }, cuda);
}

}  // namespace linattn::cuda
