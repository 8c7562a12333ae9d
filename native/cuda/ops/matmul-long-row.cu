// The product of one row with very many outputs, as a language model's head has, and the ops that make the row. Each
// warp takes one tile of outputs after another, and none waits for another one.
#include <algorithm>

#include "cuda/device/prefetch.cuh"
#include "cuda/ops/matmul-few-rows-mma.cuh"
#include "cuda/ops/product-inputs.cuh"

namespace linattn::cuda {
namespace few_rows {
namespace {

constexpr int kLongWarps = 16;
constexpr int kMostStages = 3;  // pieces of a warp that are on their way or there
constexpr int kPieceSteps = 8;
constexpr int kPieceInputs = kPieceSteps * kStepInputs;
constexpr int kPitch = kPieceInputs * 2 + 64;  // neighbouring rows lie in different halves of the banks
constexpr int kPieceBytes = kTileOutputs * kPitch;
constexpr int kDeclaredBytes = 1024;  // of shared memory, beside pieces and inputs

// Which tiles a warp takes, which changes no bit of them. Multiprocessors differ in how much of the memory's rate they
// get: most of the tiles are shared out, the last ones go to who comes. With one counter for all, a token took 3 us
// longer on an H200.
struct LongPlan {
  int tiles, pieces, stages;  // pieces of a tile: as many as stages at least
  int shares;                 // tiles that a warp has for its own
  unsigned* tickets;          // kTicketCounters

  LongPlan(const Product& p, const Cuda& cuda) {
    tiles = static_cast<int>(ceil_div(p.outputs, kTileOutputs));
    pieces = static_cast<int>(p.depth / kPieceInputs);
    const int64_t room = cuda.properties.shared_memory - kDeclaredBytes - p.depth * 2;
    stages = static_cast<int>(std::min({int64_t{pieces}, int64_t{kMostStages}, room / (kLongWarps * kPieceBytes)}));
    const int blocks = cuda.properties.multiprocessors;
    shares = blocks < kTicketCounters ? 0 : tiles * 3 / 4 / (blocks * kLongWarps);
    tickets = cuda.tickets;
  }
  bool serves() const { return stages >= 2 && shares >= 2; }
};

// The tiles that a warp fetches. The last ticket of a warp, and no other one of it, is for a tile that is not there;
// then the counter is 0 again.
struct Tiles {
  const LongPlan& plan;
  const int blocks = static_cast<int>(gridDim.x), warps = blocks * kLongWarps;
  const int counter = static_cast<int>(blockIdx.x) % kTicketCounters;
  const int own = static_cast<int>(blockIdx.x * kLongWarps + threadIdx.x / kWarp);
  int now = own, next = own + warps, turn = 1;  // `next`: of lane 0, so that only advance() waits for it

  __device__ __forceinline__ bool there() const { return now < plan.tiles; }
  __device__ __forceinline__ void advance() {
    now = __shfl_sync(kFullMask, next, 0);
    if (++turn < plan.shares) {
      next += warps;
    } else if (there() && threadIdx.x % kWarp == 0) {
      const auto of_counter = [this](int count) { return (count - counter + kTicketCounters - 1) / kTicketCounters; };
      const int first = plan.shares * warps;
      const int tickets = of_counter(plan.tiles - first) + of_counter(blocks) * kLongWarps;
      const unsigned taken = atomicInc(plan.tickets + counter * kTicketWords, static_cast<unsigned>(tickets) - 1u);
      next = first + static_cast<int>(taken) * kTicketCounters + counter;
    }
  }
};

using Inputs = NormedInputs<bfloat16, NormParts::kResidual>;

__global__ void __launch_bounds__(kLongWarps* kWarp, 1)
    long_row(const __grid_constant__ Product p, const __grid_constant__ LongPlan plan,
             const __grid_constant__ Inputs inputs, float* const converted) {
  using T = bfloat16;
  __shared__ ByteBarrier barriers[kLongWarps][kMostStages];
  __shared__ ByteBarrier met, row_made;
  __shared__ float shared[kWarp];
  __shared__ int arguments;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int depth = static_cast<int>(p.depth);
  char* const ring = dynamic_shared<char>() + warp * plan.stages * kPieceBytes;
  T* const row = reinterpret_cast<T*>(dynamic_shared<char>() + kLongWarps * plan.stages * kPieceBytes);
  let_next_begin();
  Tiles to_fetch{plan};
  int k = 0;  // the first input of the next piece
  const auto fetch = [&](int stage) {
    if (k == depth) {
      to_fetch.advance();
      k = 0;
    }
    if (to_fetch.there()) {
      ByteBarrier& barrier = barriers[warp][stage];
      if (lane == 0) barrier.expect(kTileOutputs * kPieceInputs * sizeof(T));
      __syncwarp();
      if (lane < kTileOutputs) {
        const int64_t output = int64_t{to_fetch.now} * kTileOutputs + lane;
        copy_bulk_once(ring + stage * kPieceBytes + lane * kPitch,
                       static_cast<const T*>(p.weights) + output * depth + k, kPieceInputs * sizeof(T), barrier);
      }
    }
    k += kPieceInputs;
  };
  if (warp == 0) fetch_arguments(&arguments, p, plan, inputs);
  if (lane == 0) {
    for (ByteBarrier& barrier : barriers[warp]) barrier.init();
  }
  __syncwarp();
  fetch(0);  // no kernel that may still run writes weights (packWeight)
  const int makers = inputs.makers();
  if (threadIdx.x == 0) {
    met.init(static_cast<uint32_t>(makers));
    row_made.init(static_cast<uint32_t>(makers * kWarp));
  }
  inputs.prepare();
  __syncthreads();
  // Only the makers read what kernels in front write; the others wait for the makers.
  if (warp < makers) {
    wait_for_inputs();
    inputs.make(row, shared, met);
    row_made.arrive_each();
  }
  row_made.wait(0);
  for (int stage = 1; stage < plan.stages; stage++) fetch(stage);
  if (blockIdx.x == 0) {
    for (int i = static_cast<int>(threadIdx.x); i < depth; i += kLongWarps * kWarp) converted[i] = as_float(row[i]);
  }

  const char* const weights = ring + row_place(lane, kPitch);
  int stage = 0;
  uint32_t phase = 0;
  for (int tile = to_fetch.own; tile < plan.tiles; tile = to_fetch.now) {
    Chains chains;
#pragma unroll 1
    for (const T* x = row + lane % 4 * kWidth; x < row + depth; x += kPieceInputs) {
      barriers[warp][stage].wait(phase);
#pragma unroll
      for (int step = 0; step < kPieceSteps; step++) {
        uint4 input = {};
        load_shared_if(input, x + step * kStepInputs, lane < 4);
        const uint4 w = *reinterpret_cast<const uint4*>(weights + stage * kPieceBytes + step * kStepInputs * 2);
        chains.multiply<Operands<T, T, T>>(step, {input.x, input.y, input.z, input.w}, {0, 0, 0, 0},
                                           {w.x, w.y, w.z, w.w});
      }
      __syncwarp();
      fetch(stage);
      if (++stage == plan.stages) {
        stage = 0;
        phase ^= 1;
      }
    }
    if (lane < 4) {
      const int64_t output = int64_t{tile} * kTileOutputs + 2 * lane;
      store_output<float>(p, 0, output, chains.total(0));
      store_output<float>(p, 0, output + 1, chains.total(1));
    }
  }
}

}  // namespace
}  // namespace few_rows

bool multiply_normed_long(const RmsNorm& norm, float* converted, const Product& p, Cuda& cuda) {
  using namespace few_rows;
  if (p.rows != 1 || cuda.properties.capability < 90 || p.layout.dtype != DType::kBFloat16 ||
      norm.x.dtype != DType::kBFloat16 || p.x_type != DType::kFloat32 || !aligned_rows(p, kWidth)) {
    return false;
  }
  const LongPlan plan(p, cuda);
  const Inputs inputs{rms_norm_groups<bfloat16>(norm)};
  if (p.depth % kPieceInputs != 0 || !plan.serves() || !inputs.fit(kLongWarps * kWarp)) return false;
  const size_t weights = static_cast<size_t>(kLongWarps * plan.stages * kPieceBytes);
  launch_early(cuda, long_row, static_cast<unsigned>(cuda.properties.multiprocessors), kLongWarps * kWarp,
               weights + static_cast<size_t>(p.depth) * sizeof(bfloat16), p, plan, inputs, converted);
  return true;
}

}  // namespace linattn::cuda
