// Causal softmax attention over a paged key-value cache; meaning and contract in lib/ops/softmax-attention.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct SoftmaxAttention {
  static constexpr const char* kName = "softmaxAttention";
  Tensor q;              // [T, Hq, D] any float
  Tensor k, v;           // [T, Hkv, D] any float
  Tensor pages;          // [pages, 2, pageTokens, Hkv, D] any float: keys, then values; stride(0) free, in place
  Tensor page_table;     // int32 [rows of the table, tablePages], stride(0) free
  Tensor table_rows;     // int32 [N], -1 = drop the sequence
  Tensor sinks;          // float32 [Hq] or absent
  Tensor alibi_slopes;   // float32 [Hq] or absent
  Tensor relative_bias;  // float32 [Hq, R], stride(0) free, or absent
  Tensor out;            // [T, Hq, D] as q
  Tensor row_max;        // float32 [T, Hq] or absent
  Tensor row_sum;        // float32 [T, Hq] or absent
  Sequences sequences;   // offsets and positions
  float scale = 1;
  int32_t window = 0;       // 0 = every earlier key
  int32_t sink_tokens = 0;  // the first keys, seen beyond the window too

  // Of a table row, before the ring.
  int64_t sink_pages() const { return sink_tokens == 0 ? 0 : (sink_tokens - 1) / pages.shape[2] + 1; }

  // The entry of a table row for a page counted from the start of the sequence.
  int64_t table_column(int64_t page) const {
    const int64_t sinks = sink_pages();
    return page < sinks ? page : sinks + (page - sinks) % (page_table.shape[1] - sinks);
  }

  template <class V>
  void visit(V& visitor) {
    visitor.in("q", q);
    visitor.in("k", k);
    visitor.in("v", v);
    visitor.inout("pages", pages);
    visitor.in("pageTable", page_table);
    visitor.in("tableRows", table_rows);
    visitor.optional("sinks", sinks);
    visitor.optional("alibiSlopes", alibi_slopes);
    visitor.optional("relativeBias", relative_bias);
    visitor.out("out", out);
    visitor.out("rowMax", row_max);
    visitor.out("rowSum", row_sum);
    sequences.visit(visitor);
    visitor.number("scale", scale);
    visitor.number("window", window);
    visitor.number("sinkTokens", sink_tokens);
  }
};

}  // namespace linattn
