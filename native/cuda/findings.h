// How what kernels report (faults.h) reaches whoever reads: by a kernel in the order of the stream, so that a read is
// told all that was reported before it, and nothing that was enqueued behind it; whoever reads next is told none of it.
#pragma once
#include <cstddef>

#include "cuda/cuda.h"
#include "cuda/faults.h"

namespace linattn::cuda {

// A copy that the same kernel makes: small, to host memory that the device sees, in whole words of 4 bytes.
struct WordCopy {
  void* to = nullptr;
  const void* from = nullptr;
  size_t bytes = 0;
};

// Enqueues `copy`, and the move of every report to `told`: one an op, in host memory that the device sees.
void tell(Cuda& cuda, Fault* told, const WordCopy& copy);

}  // namespace linattn::cuda
