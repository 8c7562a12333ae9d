// What the device knows of each sequence: a row of int32 a slot, indexed by slot and never by row of a batch. A step
// reads the state slot `read` and writes `write`; committing swaps them, advances `length` and takes the next token.
#pragma once
#include <cstdint>
#include <string>

#include "core/error.h"
#include "core/tensor.h"

namespace linattn {

struct StepRow {
  int32_t read;         // state slot that holds the committed state; -1 = none yet, start from zero
  int32_t write;        // state slot of the other half
  int32_t length;       // committed tokens
  int32_t token;        // pending: delivered, not consumed
  int32_t uncommitted;  // 1 when a decode step has ended whose effects do not count yet
  int32_t next_token;   // that step's sampled token
  int32_t live;         // 0 once a stop that the device sees has come
  int32_t remaining;    // tokens that may still be sampled
  int32_t spare;        // the second state slot, while `read` is -1: it becomes `write` at the first commit
  int32_t processed;    // tokens that went through steps, counted here and by nobody else
  int32_t reserved[6];
};
constexpr int kStepRowInts = sizeof(StepRow) / sizeof(int32_t);
static_assert(kStepRowInts == 16);

inline StepRow* step_row(const Tensor& table, int32_t slot, const char* op) {
  if (slot < 0 || slot >= table.shape[0]) {
    throw Error("ERR_ARGUMENT", std::string(op) + ": rows must be below " + std::to_string(table.shape[0]) + ", got " +
                                    std::to_string(slot));
  }
  return reinterpret_cast<StepRow*>(table.row<int32_t>(slot));
}

// Before anything is written: every slot that `rows` (int32 [N], -1 = nothing) names is in the table.
inline void check_step_rows(const Tensor& table, const Tensor& rows, const char* op) {
  for (int64_t n = 0; n < rows.shape[0]; n++) {
    if (rows.as<int32_t>()[n] >= 0) step_row(table, rows.as<int32_t>()[n], op);
  }
}

constexpr void swap_halves(StepRow& row) {
  const int32_t written = row.write;
  row.write = row.read >= 0 ? row.read : row.spare;
  row.read = written;
}

constexpr void commit_decode(StepRow& row) {
  if (!row.uncommitted) return;
  swap_halves(row);
  row.length += 1;
  row.token = row.next_token;
  row.uncommitted = 0;
}

}  // namespace linattn
