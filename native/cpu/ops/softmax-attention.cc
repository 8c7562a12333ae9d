// Softmax attention over a paged cache. The keys of a row are taken in spans of 256 anchored at the absolute position;
// each span has a maximum, a sum and weighted values of its own, merged in rising order; sinks behind the window are
// spans of their own before the others. Nothing else orders a row's arithmetic, so its bits do not depend on slicing,
// on the rest of the batch or on threads, and prefill equals decode.
#include "ops/softmax-attention.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "core/error.h"
#include "cpu/cpu.h"
#include "cpu/simd.h"

namespace linattn::cpu {
namespace {

constexpr int kSpan = 256;
constexpr int kTileRows = 96;        // query rows that share a packed panel of keys
constexpr int kSplitRows = 512;      // with no more rows in the batch, spans are tasks of their own
constexpr int kPartRows = 4096;      // rows of partial results that are kept at a time
constexpr int kPackValuesRows = 12;  // rows from which a float32 copy of the values pays

constexpr auto make_index() {
  std::array<float, kSpan> index{};
  for (int i = 0; i < kSpan; i++) index[i] = static_cast<float>(i);
  return index;
}
constexpr std::array<float, kSpan> kIndexes = make_index();
constexpr const float* kIndex = kIndexes.data();

// Consecutive queries of a sequence, with all query heads of one KV head: row r is token r / group, head r % group.
struct AttentionTile {
  const int32_t* table;  // pages of the sequence
  int64_t position;      // of the first token
  int64_t token;         // the first one's place in the batch
  int32_t tokens, rows, kv_head;
  // Parts of its keys: spans of the sinks that the window has left behind, then those that any row's window reaches.
  int64_t sink_spans, first_span, parts;
  int64_t first_row;  // rows of the tiles before
};

// Softmax over some of the keys: out = sum of e^(score - max) * value, [rows, padded width]. sum 0: no key yet.
struct AttentionPart {
  float *max, *sum, *out;
};

// What one thread needs for one span.
struct AttentionScratch {
  const void** keys;  // [kSpan] addresses of rows of the cache
  int *begin, *end;   // [rows] keys of the span that a row sees
  float* query;       // [rows, width]
  float* panel;       // [width, keys of a panel]
  float* weights;     // [rows, kSpan]
  float* values;      // [kSpan, padded width] or null: taken from the cache
  AttentionPart part;
};

int64_t padded_width(int64_t width) { return (width + 15) / 16 * 16; }

// Element of `pages` where the keys (of all heads) of a position begin; the values lie pageTokens * Hkv * D behind.
int64_t key_offset(const SoftmaxAttention& op, const int32_t* table, int64_t position) {
  const int64_t page_tokens = op.pages.shape[2];
  const int64_t page = table[op.table_column(position / page_tokens)];
  return page * op.pages.stride0 + position % page_tokens * op.pages.shape[3] * op.pages.shape[4];
}

}  // namespace
}  // namespace linattn::cpu

#define LINATTN_KERNELS "cpu/ops/softmax-attention-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {
namespace {

[[noreturn]] void fail(const std::string& message) { throw Error("ERR_ARGUMENT", "softmaxAttention: " + message); }

std::string at(const char* name, int64_t i) { return std::string(name) + "[" + std::to_string(i) + "]"; }

// The oldest key that the window of a token at `position` reaches.
int64_t oldest_key(const SoftmaxAttention& op, int64_t position) {
  return op.window > 0 ? std::max<int64_t>(0, position - op.window + 1) : 0;
}

// Every page that the sequence reads or writes exists, before anything is written.
void check_pages(const SoftmaxAttention& op, int64_t n, int64_t position, int64_t tokens) {
  const int32_t table_row = op.table_rows.as<int32_t>()[n];
  const int64_t page_tokens = op.pages.shape[2], table_pages = op.page_table.shape[1];
  const int64_t first = oldest_key(op, position) / page_tokens, sinks = op.sink_pages();
  const int64_t last = (position + tokens - 1) / page_tokens;
  const int64_t needed = sinks + std::max<int64_t>(0, last - std::max(first, sinks) + 1);
  if (needed > table_pages) {
    fail("sequence " + std::to_string(n) + " needs " + std::to_string(needed) + " pages at position " +
         std::to_string(position) + ", pageTable has " + std::to_string(table_pages) + " a row");
  }
  for (int64_t page = sinks > 0 ? 0 : first; page <= last; page++) {
    if (page == sinks) page = std::max(page, first);
    const int64_t column = op.table_column(page);
    const int32_t id = op.page_table.row<int32_t>(table_row)[column];
    if (id >= 0 && id < op.pages.shape[0]) continue;
    fail(at("pageTable", table_row) + "[" + std::to_string(column) + "] must be a page in [0, " +
         std::to_string(op.pages.shape[0]) + ") for the tokens from " + std::to_string(page * page_tokens) +
         " of sequence " + std::to_string(n) + ", got " + std::to_string(id));
  }
}

// The tiles of the live sequences, checked; tokens of the others are marked in `live`.
std::vector<AttentionTile> make_tiles(const SoftmaxAttention& op, std::vector<char>& live) {
  const int64_t tokens = op.q.shape[0], kv_heads = op.k.shape[1];
  const int64_t group = op.q.shape[1] / kv_heads;
  const int32_t* const offsets = op.sequences.offsets.as<int32_t>();
  const int32_t* const positions = op.sequences.positions.as<int32_t>();
  const int32_t* const table_rows = op.table_rows.as<int32_t>();
  const int64_t tile_tokens = std::max<int64_t>(1, kTileRows / group);
  std::vector<AttentionTile> tiles;
  int64_t rows = 0;
  for (int64_t n = 0; n < op.sequences.rows; n++) {
    if (offsets[n] < 0 || offsets[n + 1] < offsets[n] || offsets[n + 1] > tokens) {
      fail(at("offsets", n + 1) + " must be in [" + at("offsets", n) + ", " + std::to_string(tokens) + "], got " +
           std::to_string(offsets[n + 1]) + " after " + std::to_string(offsets[n]));
    }
    if (table_rows[n] < -1 || table_rows[n] >= op.page_table.shape[0]) {
      fail(at("tableRows", n) + " must be in [-1, " + std::to_string(op.page_table.shape[0]) + "), got " +
           std::to_string(table_rows[n]));
    }
    if (table_rows[n] < 0 || offsets[n + 1] == offsets[n]) continue;
    if (positions[n] < 0) fail(at("positions", n) + " must not be negative, got " + std::to_string(positions[n]));
    check_pages(op, n, positions[n], offsets[n + 1] - offsets[n]);
    for (int64_t token = offsets[n]; token < offsets[n + 1]; token += tile_tokens) {
      const int64_t count = std::min<int64_t>(tile_tokens, offsets[n + 1] - token);
      const int64_t position = positions[n] + token - offsets[n];
      const int64_t sinks = std::min<int64_t>(op.sink_tokens, oldest_key(op, position + count - 1));
      const int64_t sink_spans = (sinks + kSpan - 1) / kSpan, first = oldest_key(op, position) / kSpan;
      const int64_t parts = sink_spans + (position + count - 1) / kSpan - first + 1;
      for (int64_t head = 0; head < kv_heads; head++) {
        tiles.push_back({op.page_table.row<int32_t>(table_rows[n]), position, token, static_cast<int32_t>(count),
                         static_cast<int32_t>(count * group), static_cast<int32_t>(head), sink_spans, first, parts,
                         rows});
        rows += count * group;
      }
    }
    std::fill(live.begin() + offsets[n], live.begin() + offsets[n + 1], 1);
  }
  return tiles;
}

void clear_dropped(const SoftmaxAttention& op, const std::vector<char>& live) {
  for (int64_t token = 0; token < op.q.shape[0]; token++) {
    if (live[token]) continue;
    const int64_t bytes = op.out.inner() * dtype_bytes(op.out.dtype);
    std::memset(op.out.as<char>() + token * op.out.stride0 * dtype_bytes(op.out.dtype), 0, bytes);
    if (op.row_max) {
      std::fill_n(op.row_max.row<float>(token), op.q.shape[1], -std::numeric_limits<float>::infinity());
    }
    if (op.row_sum) std::fill_n(op.row_sum.row<float>(token), op.q.shape[1], 0.0f);
  }
}

AttentionPart part_of(Cpu& cpu, int64_t rows, int64_t padded) {
  return {cpu.scratch_of<float>(rows), cpu.scratch_of<float>(rows), cpu.scratch_of<float>(rows * padded)};
}

AttentionPart rows_from(const AttentionPart& part, int64_t row, int64_t padded) {
  return {part.max + row, part.sum + row, part.out + row * padded};
}

std::vector<AttentionScratch> make_scratch(Cpu& cpu, int64_t rows, int64_t width) {
  const int64_t padded = padded_width(width);
  std::vector<AttentionScratch> all(cpu.pool->threads());
  for (auto& scratch : all) {
    scratch.keys = cpu.scratch_of<const void*>(kSpan + 16);
    scratch.begin = cpu.scratch_of<int>(rows);
    scratch.end = cpu.scratch_of<int>(rows);
    scratch.query = cpu.scratch_of<float>(rows * width);
    scratch.panel = cpu.scratch_of<float>(width * 64);
    scratch.weights = cpu.scratch_of<float>(rows * kSpan);
    const bool pack = rows >= kPackValuesRows || width != padded;
    scratch.values = pack ? cpu.scratch_of<float>(kSpan * padded) : nullptr;
    scratch.part = part_of(cpu, rows, padded);
  }
  return all;
}

}  // namespace

void run(const SoftmaxAttention& op, Cpu& cpu) {
  std::vector<char> live(op.q.shape[0]);
  const std::vector<AttentionTile> tiles = make_tiles(op, live);
  clear_dropped(op, live);
  if (tiles.empty()) return;

  const auto write = LINATTN_DISPATCH(cpu.level, write_cache);
  cpu.pool->run(tiles.size(), [&](int64_t task, int) {
    const AttentionTile& tile = tiles[task];
    if (tile.kv_head == 0) write(op, tile.table, tile.position, tile.token, tile.token + tile.tokens);
  });

  const auto load = LINATTN_DISPATCH(cpu.level, load_queries);
  const auto attend = LINATTN_DISPATCH(cpu.level, attend_part);
  const auto merge = LINATTN_DISPATCH(cpu.level, merge_part);
  const auto finish = LINATTN_DISPATCH(cpu.level, finish_tile);
  const int64_t width = op.q.shape[2], padded = padded_width(width);
  const int64_t all_rows = tiles.back().first_row + tiles.back().rows;
  int64_t rows = 0, parts = 0;
  for (const AttentionTile& tile : tiles) {
    rows = std::max<int64_t>(rows, tile.rows);
    parts = std::max(parts, tile.parts);
  }
  const std::vector<AttentionScratch> scratches = make_scratch(cpu, rows, width);

  if (all_rows > kSplitRows || parts == 1) {
    std::vector<AttentionPart> totals;
    for (int thread = 0; thread < cpu.pool->threads(); thread++) totals.push_back(part_of(cpu, rows, padded));
    // The last tiles see the most keys: they go first, so that the short ones fill the end.
    cpu.pool->run(tiles.size(), [&](int64_t task, int thread) {
      const AttentionTile& tile = tiles[tiles.size() - 1 - task];
      const AttentionScratch& scratch = scratches[thread];
      const AttentionPart& total = totals[thread];
      std::fill_n(total.sum, tile.rows, 0.0f);
      load(op, tile, scratch.query);
      for (int64_t i = 0; i < tile.parts; i++) {
        attend(op, tile, i, scratch.query, scratch.part, scratch);
        merge(tile.rows, padded, scratch.part, total);
      }
      finish(op, tile, total);
    });
    return;
  }

  const int64_t wave = std::min(parts, kPartRows / all_rows);  // parts between two merges
  const AttentionPart total = part_of(cpu, all_rows, padded);
  const AttentionPart partial = part_of(cpu, all_rows * wave, padded);
  std::fill_n(total.sum, all_rows, 0.0f);
  const auto part_at = [&](const AttentionTile& tile, int64_t i) {
    return rows_from(partial, i * all_rows + tile.first_row, padded);
  };
  for (int64_t begin = 0; begin < parts; begin += wave) {
    cpu.pool->run(wave * tiles.size(), [&](int64_t task, int thread) {
      const AttentionTile& tile = tiles[task % tiles.size()];
      const int64_t i = task / tiles.size();
      if (begin + i >= tile.parts) return;
      load(op, tile, scratches[thread].query);
      attend(op, tile, begin + i, scratches[thread].query, part_at(tile, i), scratches[thread]);
    });
    cpu.pool->run(tiles.size(), [&](int64_t task, int) {
      const AttentionTile& tile = tiles[task];
      const AttentionPart own = rows_from(total, tile.first_row, padded);
      for (int64_t i = 0; i < wave && begin + i < tile.parts; i++) merge(tile.rows, padded, part_at(tile, i), own);
      if (begin < tile.parts && begin + wave >= tile.parts) finish(op, tile, own);
    });
  }
}

}  // namespace linattn::cpu
