// How what kernels report (faults.h) reaches whoever reads: by a kernel in the order of the stream, so that a read is
// told what was reported before it and nothing that was enqueued behind it.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/cuda.h"
#include "cuda/faults.h"

namespace linattn::cuda {

// Host memory that the device sees.
struct Finding {
  Fault fault;  // kNone: nothing
  int32_t op;
};

// A copy that the same kernel makes: small, to host memory that the device sees, in whole words of 4 bytes.
struct WordCopy {
  void* to = nullptr;
  const void* from = nullptr;
  size_t bytes = 0;
};

// Enqueues `copy`, and the move of one report, of the op that comes first, to `finding`; the other reports stay.
void tell(Cuda& cuda, Finding* finding, const WordCopy& copy);

}  // namespace linattn::cuda
