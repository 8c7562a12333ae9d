// beginStep, markSeen, embedding and the conversion of its rows in a decode step of few sequences by one kernel.
#pragma once
#include "cuda/cuda.h"
#include "ops/begin-step.h"
#include "ops/convert.h"
#include "ops/embedding.h"
#include "ops/mark-seen.h"

namespace linattn::cuda {

// False, and nothing done, where it does not serve.
bool begin_decode(const BeginStep& begin, const MarkSeen& marks, const Embedding& embedding, const Convert& converted,
                  Cuda& cuda);

}  // namespace linattn::cuda
