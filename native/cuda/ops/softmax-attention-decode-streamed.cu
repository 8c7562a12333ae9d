// softmaxAttention of decode rows in 16 bits on Hopper: as many blocks as the GPU holds take the splits of all rows in
// turn. One warp of a block has the copy engine load queries, keys and values, as far ahead as there are stages, over
// the ends of splits; the others multiply.
#ifdef LINATTN_CUDA_EMULATOR
#include "cuda/ops/softmax-attention.cuh"

namespace linattn::cuda {

bool run_streamed_decode(const AttentionView&, const DecodePlan&, Cuda&) { return false; }

}  // namespace linattn::cuda
#else
#include "cuda/device/launch.cuh"
#include "cuda/ops/softmax-attention-boxes.cuh"
#include "cuda/ops/softmax-attention-decode.cuh"

namespace linattn::cuda {
namespace {

template <int kWidthGiven, int kRowTilesGiven>
struct StreamShape {
  static constexpr int kWidth = kWidthGiven, kRowTiles = kRowTilesGiven;
  static constexpr int kRows = 16 * kRowTiles;
  static constexpr int kKeys = 64;                     // of a tile
  static constexpr int kWarps = kWidth <= 64 ? 4 : 8;  // that multiply
  static constexpr int kThreads = (kWarps + 1) * kWarp;
  static constexpr int kTileValues = kKeys * kWidth;
  // As the shared memory has room for; with a width of 64, of two blocks: a tile has little to multiply.
  static constexpr int kStages = (kRowTiles == 1 ? 3 : 2) * (kWidth == 64 ? 2 : 256 / kWidth);
  static constexpr int kQueryStride = kWidth + kHalfPiece;  // no bank conflicts
  static constexpr int kQueries = 2;                        // splits whose queries are there
};

// A tile of keys of a split.
struct StreamTile {
  AttentionRow row;
  DecodeItem item;
  int first_key, begin_key, end_key;
  bool first, last;  // of its split
  bool ends;         // no more come
};

template <class T, class Shape>
struct StreamShared {
  alignas(1024) T keys[Shape::kStages][Shape::kTileValues];
  T values[Shape::kStages][Shape::kTileValues];
  T queries[Shape::kQueries][Shape::kRows * Shape::kQueryStride];
  DecodeRows<T, Shape::kWidth, Shape::kRowTiles, Shape::kKeys, Shape::kWarps> rows;
  StreamTile tiles[Shape::kStages];
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <class Shape>
struct StreamBarriers {
  ByteBarrier full[Shape::kStages];
  StageBarrier empty[Shape::kStages], queries_empty[Shape::kQueries];
};

// The piece of 16-bit values that begins at element i.
__device__ __forceinline__ const uint4* piece_of(const void* values, int64_t i) {
  return reinterpret_cast<const uint4*>(static_cast<const bfloat16*>(values) + i);
}

__device__ __forceinline__ uint4* piece_of(void* values, int64_t i) {
  return reinterpret_cast<uint4*>(static_cast<bfloat16*>(values) + i);
}

// Keys and values of another dtype than the pages, or not aligned: one value at a time.
static __device__ LINATTN_NO_INLINE void stream_values(const AttentionView& x, int64_t key, int64_t k, int64_t v) {
  for (int d = static_cast<int>(threadIdx.x % kWarp); d < x.width; d += kWarp) {
    store_element(x.pages, x.page_type, key + d, load_element(x.k, x.k_type, k + d));
    store_element(x.pages, x.page_type, key + values_apart(x) + d, load_element(x.v, x.v_type, v + d));
  }
}

// The new keys and values of a row and head whose positions are in [begin, end) go to their pages; then the copy engine
// may read them there. By a warp.
__device__ __forceinline__ void stream_new(const AttentionView& x, const AttentionRow& row, int kv_head, int begin,
                                           int end) {
  begin = max(begin, row.position);
  end = min(end, row.end_key());
  if (begin >= end) return;
  const int lane = threadIdx.x % kWarp;
  const bool has_piece = x.pieces && lane < x.width / kHalfPiece;
#pragma unroll 1
  for (int position = begin; position < end; position++) {
    const int64_t token = row.first + position - row.position, head = static_cast<int64_t>(kv_head) * x.width;
    const int64_t k = token * x.k_stride + head, v = token * x.v_stride + head;
    uint4 new_k, new_v;
    if (has_piece) {
      new_k = *piece_of(x.k, k + lane * kHalfPiece);
      new_v = *piece_of(x.v, v + lane * kHalfPiece);
    }
    const int64_t key = key_offset(x, row, position);
    if (key < 0) continue;
    if (has_piece) {
      *piece_of(x.pages, key + head + lane * kHalfPiece) = new_k;
      *piece_of(x.pages, key + head + values_apart(x) + lane * kHalfPiece) = new_v;
    }
    if (!x.pieces) stream_values(x, key + head, k, v);
  }
  __threadfence();
  asm volatile("fence.proxy.async;\n" ::: "memory");
  __syncwarp();
}

// `i`: the block's first item.
template <class T, class Shape>
__device__ __forceinline__ void produce(const AttentionView& x, const DecodePlan& plan, const KeyBoxes& boxes,
                                        int row_tiles, int i, StreamShared<T, Shape>& shared,
                                        StreamBarriers<Shape>& barriers) {
  constexpr uint32_t kStageBytes = 2 * Shape::kTileValues * sizeof(T);
  const int lane = threadIdx.x % kWarp;
  const int step = static_cast<int>(gridDim.x);
  int count = 0, splits = 0;  // of tiles, of splits so far
  StreamTile tile;
  while (i >= 0) {
    tile.item = decode_item(x, plan, row_tiles, i);
    tile.row = attention_row(x, tile.item.n);
    const KeyRange keys = split_keys(x, plan, tile.row, tile.item.split);
    tile.begin_key = max(keys.begin, tile.row.begin_key(x.window));
    tile.end_key = keys.end;
    stream_new(x, tile.row, tile.item.kv_head, keys.begin, keys.end);
    const int first_row = tile.item.tile * Shape::kRows;
    const int rows = min(Shape::kRows, tile.row.count * x.group - first_row);
    const uint32_t row_bytes = Shape::kWidth * sizeof(T);
    for (int key = keys.begin; key < keys.end; key += Shape::kKeys) {
      tile.first_key = key;
      tile.first = key == keys.begin;
      tile.last = key + Shape::kKeys >= keys.end;
      const KeyBox box = find_key_box<Shape::kKeys>(x, boxes, tile.row, key, tile.begin_key, tile.end_key);
      const int stage = count % Shape::kStages;
      barriers.empty[stage].wait(count / Shape::kStages % 2 ^ 1);
      const int place = splits % Shape::kQueries;
      if (tile.first) barriers.queries_empty[place].wait(splits / Shape::kQueries % 2 ^ 1);
      copy_key_box<Shape::kWidth>(shared.keys[stage], x, boxes, box, tile.item.kv_head, false, barriers.full[stage]);
      copy_key_box<Shape::kWidth>(shared.values[stage], x, boxes, box, tile.item.kv_head, true, barriers.full[stage]);
      if (tile.first) {
        for (int r = lane; r < rows; r += kWarp) {
          const OutputRow at = output_row(x, tile.row, tile.item.kv_head, first_row + r);
          copy_bulk(shared.queries[place] + r * Shape::kQueryStride,
                    static_cast<const T*>(x.q) + at.token * x.q_stride + at.head * Shape::kWidth, row_bytes,
                    barriers.full[stage]);
        }
      }
      // Bytes may come before they are announced: the phase does not end without the announcement.
      if (tile.last) i = next_item(x, plan, row_tiles, Shape::kRows, i + step, step);
      tile.ends = tile.last && i < 0;
      if (lane == 0) {
        shared.tiles[stage] = tile;
        barriers.full[stage].expect(kStageBytes + (tile.first ? rows * row_bytes : 0));
      }
      __syncwarp();
      count++;
    }
    splits++;
  }
}

template <class T, class Shape>
__device__ __forceinline__ void consume(const AttentionView& x, const DecodePlan& plan, StreamShared<T, Shape>& shared,
                                        StreamBarriers<Shape>& barriers) {
  using Rows = decltype(shared.rows);
  constexpr int kWidth = Shape::kWidth, kThreads = Shape::kWarps * kWarp;
  const int thread = static_cast<int>(threadIdx.x), shared_row = thread / Rows::kSharers;
  typename Rows::Sums out;
  int first_row = 0, rows = 0, position = 0, splits = 0;
  float slope = 0;
  for (int count = 0;; count++) {
    const int stage = count % Shape::kStages, place = splits % Shape::kQueries;
    barriers.full[stage].wait(count / Shape::kStages % 2);
    const StreamTile& tile = shared.tiles[stage];
    if (tile.first) {
      first_row = tile.item.tile * Shape::kRows;
      rows = min(Shape::kRows, tile.row.count * x.group - first_row);
      const int query_row = first_row + min(rows - 1, shared_row);
      position = tile.row.position + quotient(query_row, x.group);
      slope = x.slopes ? x.slopes[output_row(x, tile.row, tile.item.kv_head, query_row).head] : 0.0f;
      if (thread < Shape::kRows) {
        shared.rows.max[thread] = -INFINITY;
        shared.rows.sum[thread] = 0;
      }
#pragma unroll
      for (int m = 0; m < Shape::kRowTiles; m++) {
#pragma unroll
        for (int n = 0; n < Rows::kColumnTiles; n++) {
#pragma unroll
          for (int i = 0; i < 4; i++) out[m][n][i] = 0;
        }
      }
    }
    const auto at = [](const T* values) {
      return [values](int r, int piece) { return values + wgmma_place<kWidth>(r, piece); };
    };
    const T* const queries = shared.queries[place];
    score_tile(
        shared.rows, [queries](int r, int piece) { return queries + r * Shape::kQueryStride + piece * kHalfPiece; },
        at(shared.keys[stage]));
    clear_unseen<Shape::kKeys, kWidth, kThreads>(shared.values[stage], tile.first_key, tile.begin_key, tile.end_key);
    named_barrier(1, kThreads);
    weigh_tile<false>(shared.rows, x, tile.first_key, {}, position, shared_row < rows, slope, nullptr);
    named_barrier(1, kThreads);
    add_values(shared.rows, at(shared.values[stage]), out);
    if (tile.last) {
      write_part(shared.rows, x, plan, tile.item, tile.row, first_row, rows, out);
      named_barrier(1, kThreads);  // the next split begins with other maxima and sums
      barriers.queries_empty[place].arrive();
      splits++;
    }
    if (tile.ends) return;
    barriers.empty[stage].arrive();
  }
}

#endif

// Empty but for sm_90a; there it declares shared memory, by which is_for_hopper() knows it.
template <class T, class Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    streamed_decode_kernel(const __grid_constant__ AttentionView x, const __grid_constant__ DecodePlan plan,
                           const __grid_constant__ KeyBoxes boxes, int row_tiles) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  __shared__ StreamBarriers<Shape> barriers;
  if (threadIdx.x == 0) {
    for (auto& barrier : barriers.full) barrier.init();
    for (auto& barrier : barriers.empty) barrier.init(Shape::kWarps);
    for (auto& barrier : barriers.queries_empty) barrier.init(Shape::kWarps);
  }
  __syncthreads();
  wait_for_inputs();
  const int first =
      next_item(x, plan, row_tiles, Shape::kRows, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x));
  if (first < 0) return;
  auto& shared = *dynamic_shared<StreamShared<T, Shape>>();
  if (threadIdx.x < Shape::kWarps * kWarp) {
    consume(x, plan, shared, barriers);
  } else {
    produce(x, plan, boxes, row_tiles, first, shared, barriers);
  }
#endif
}

template <class T, class Shape>
bool launch_streamed(const AttentionView& x, const DecodePlan& plan, Cuda& cuda) {
  const auto kernel = streamed_decode_kernel<T, Shape>;
  KeyBoxes boxes;
  if (!is_for_hopper(kernel) || !make_key_boxes(x, Shape::kKeys, boxes)) return false;
  const int row_tiles = static_cast<int>(ceil_div(std::max(1, plan.row_tokens) * x.group, Shape::kRows));
  const int64_t items = static_cast<int64_t>(plan.rows) * x.kv_heads * row_tiles * plan.splits;
  constexpr size_t kBytes = sizeof(StreamShared<T, Shape>);
  const int64_t resident = std::max<int64_t>(1, cuda.properties.shared_memory / (kBytes + 2048));
  const auto blocks = static_cast<unsigned>(std::min(items, resident * cuda.properties.multiprocessors));
  launch_early(cuda, kernel, blocks, Shape::kThreads, kBytes, x, plan, boxes, row_tiles);
  return true;
}

template <class T, int kWidth>
bool launch_width(const AttentionView& x, const DecodePlan& plan, Cuda& cuda) {
  const int rows = std::max(1, plan.row_tokens) * x.group;
  return rows <= 16   ? launch_streamed<T, StreamShape<kWidth, 1>>(x, plan, cuda)
         : rows <= 32 ? launch_streamed<T, StreamShape<kWidth, 2>>(x, plan, cuda)
                      : launch_streamed<T, StreamShape<kWidth, 4>>(x, plan, cuda);
}

}  // namespace

bool run_streamed_decode(const AttentionView& x, const DecodePlan& plan, Cuda& cuda) {
  if (!has_key_boxes(x, cuda) || x.bias || x.sink_tokens > 0) return false;
  bool launched = false;
  for_float(x.q_type, [&](auto value) {
    using T = decltype(value);
    if constexpr (sizeof(T) == 2) {
      launched = x.width == 64    ? launch_width<T, 64>(x, plan, cuda)
                 : x.width == 128 ? launch_width<T, 128>(x, plan, cuda)
                                  : launch_width<T, 256>(x, plan, cuda);
    }
  });
  return launched;
}

}  // namespace linattn::cuda
#endif
