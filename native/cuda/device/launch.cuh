// Launching a kernel: every failure is an Error, large shared memory is asked for, an empty grid launches nothing.
#pragma once
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda/cuda.h"
#include "cuda/error.h"

namespace linattn::cuda {

// Dynamic shared memory that a kernel gets unasked beside the arrays that it declares, of which none has more than half
// of the 48 KB for both.
constexpr size_t kSharedUnasked = 24 * 1024;

struct LaunchHow {
  bool early = false;
  bool all_shared = false;  // prefers shared memory to the first cache, so that the next kernel's blocks find room
  unsigned cluster = 1;     // blocks next to one another in x that run at the same time, on sm_90
};

template <class... Parameters, class... Arguments>
void launch_as([[maybe_unused]] LaunchHow how, Cuda& cuda, void (*kernel)(Parameters...), dim3 grid, dim3 block,
               size_t shared, Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
#ifdef LINATTN_CUDA_EMULATOR
  const std::tuple<std::decay_t<Parameters>...> held(static_cast<Parameters>(arguments)...);
  emulator::enqueue([=] {
    const auto body = [&] { std::apply(kernel, held); };
    if (how.cluster > 1) {
      emulator::launch_clusters(grid, block, shared, how.cluster, body);
    } else {
      emulator::launch(grid, block, shared, body);
    }
  });
#else
  if (shared > kSharedUnasked) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = cuda.stream;
  cudaLaunchAttribute attributes[3]{};
  config.attrs = attributes;
  if (how.early && cuda.properties.capability >= 90) {
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
  }
#if CUDART_VERSION >= 12080
  if (how.all_shared && cuda.properties.capability >= 90) {
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributePreferredSharedMemoryCarveout;
    attribute.val.sharedMemCarveout = cudaSharedmemCarveoutMaxShared;
  }
#endif
  if (how.cluster > 1) {
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = how.cluster;
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  }
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
#endif
}

template <class... Parameters, class... Arguments>
void launch(Cuda& cuda, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, Arguments&&... arguments) {
  launch_as(LaunchHow{}, cuda, kernel, grid, block, shared, std::forward<Arguments>(arguments)...);
}

// The same for a kernel that calls wait_for_inputs() before it reads what an earlier kernel writes and before it
// writes: it may begin while the one before it ends.
template <class... Parameters, class... Arguments>
void launch_early(Cuda& cuda, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared,
                  Arguments&&... arguments) {
  launch_as(LaunchHow{true}, cuda, kernel, grid, block, shared, std::forward<Arguments>(arguments)...);
}

}  // namespace linattn::cuda
