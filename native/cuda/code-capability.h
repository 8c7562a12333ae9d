// Which of the library's architectures the driver took: where that is PTX of an older one, kernels lack what only newer
// code has (the copy engine, clusters, waiting for the kernels in front), whatever the GPU can do.
#pragma once

namespace linattn::cuda {

// The compute capability that the code loaded for the current device was compiled for: 80 for PTX of compute_80.
int code_capability();

}  // namespace linattn::cuda
