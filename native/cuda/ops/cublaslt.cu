// cuBLASLt through dlopen: algorithms are chosen once for a shape. Reductions are in float32 and in a fixed order.
#include "cuda/ops/cublaslt.h"

#ifdef LINATTN_CUDA_EMULATOR

namespace linattn::cuda {

CublasLt* cublaslt(Cuda&) { return nullptr; }
bool multiply(CublasLt&, const MatrixProduct&, void*, Cuda&) { return false; }

}  // namespace linattn::cuda

#else

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "cuda/error.h"

namespace linattn::cuda {
namespace {

// What is called of the library's C interface, which has been the same in versions 11 to 13.
using Handle = void*;
using Descriptor = void*;
struct Algorithm {
  uint64_t data[8];
};
struct Heuristic {
  Algorithm algorithm;
  size_t workspace;
  int status;
  float waves;
  int reserved[4];
};
enum DataType { kReal32 = 0, kReal16 = 2, kRealB16 = 14 };
enum { kCompute32 = 68 };                      // CUBLAS_COMPUTE_32F: no tf32
enum { kTransposeA = 3 };                      // attribute of a product
enum { kMostWorkspace = 1, kReductions = 3 };  // attributes of a preference
enum { kAlignmentA = 5, kAlignmentB, kAlignmentC, kAlignmentD };
enum { kReduceInComputeType = 2 };

struct Library {
  int (*create)(Handle*);
  int (*product_create)(Descriptor*, int compute, int scale);
  int (*product_destroy)(Descriptor);
  int (*product_set)(Descriptor, int attribute, const void* value, size_t bytes);
  int (*layout_create)(Descriptor*, int type, uint64_t rows, uint64_t columns, int64_t stride);
  int (*layout_destroy)(Descriptor);
  int (*preference_create)(Descriptor*);
  int (*preference_destroy)(Descriptor);
  int (*preference_set)(Descriptor, int attribute, const void* value, size_t bytes);
  int (*heuristic)(Handle, Descriptor product, Descriptor a, Descriptor b, Descriptor c, Descriptor d,
                   Descriptor preference, int most, Heuristic* found, int* count);
  int (*check)(Handle, Descriptor product, Descriptor a, Descriptor b, Descriptor c, Descriptor d,
               const Algorithm* algorithm, Heuristic* result);
  int (*multiply)(Handle, Descriptor product, const void* alpha, const void* a, Descriptor a_layout, const void* b,
                  Descriptor b_layout, const void* beta, const void* c, Descriptor c_layout, void* d,
                  Descriptor d_layout, const Algorithm* algorithm, void* workspace, size_t workspace_bytes,
                  cudaStream_t stream);
};

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

void* open_library() {
  if (const char* path = std::getenv("LINATTN_CUBLASLT"); path && *path) {
    if (std::strcmp(path, "none") == 0) return nullptr;
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) throw Error("ERR_CUDA", std::string("cuda: LINATTN_CUBLASLT: ") + dlerror());
    return library;
  }
  const std::string folders[] = {"", "/usr/local/cuda/lib64/", "/opt/cuda/lib64/", "/usr/lib/x86_64-linux-gnu/",
                                 "/usr/lib/aarch64-linux-gnu/"};
  for (const std::string& folder : folders) {
    for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"}) {
      if (void* library = dlopen((folder + name).c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    }
  }
  return nullptr;
}

const Library* library() {
  static const auto found = []() -> std::unique_ptr<Library> {
    void* opened = open_library();
    auto made = std::make_unique<Library>();
    const bool complete = opened && find(opened, "cublasLtCreate", made->create) &&
                          find(opened, "cublasLtMatmulDescCreate", made->product_create) &&
                          find(opened, "cublasLtMatmulDescDestroy", made->product_destroy) &&
                          find(opened, "cublasLtMatmulDescSetAttribute", made->product_set) &&
                          find(opened, "cublasLtMatrixLayoutCreate", made->layout_create) &&
                          find(opened, "cublasLtMatrixLayoutDestroy", made->layout_destroy) &&
                          find(opened, "cublasLtMatmulPreferenceCreate", made->preference_create) &&
                          find(opened, "cublasLtMatmulPreferenceDestroy", made->preference_destroy) &&
                          find(opened, "cublasLtMatmulPreferenceSetAttribute", made->preference_set) &&
                          find(opened, "cublasLtMatmulAlgoGetHeuristic", made->heuristic) &&
                          find(opened, "cublasLtMatmulAlgoCheck", made->check) &&
                          find(opened, "cublasLtMatmul", made->multiply);
    return complete ? std::move(made) : nullptr;
  }();
  return found.get();
}

void call(int status, const char* what) {
  if (status == 0) return;
  throw Error("ERR_CUDA", std::string("cuda: ") + what + " failed with cuBLAS status " + std::to_string(status));
}

DataType data_type(DType dtype) {
  return dtype == DType::kFloat32 ? kReal32 : dtype == DType::kFloat16 ? kReal16 : kRealB16;
}

constexpr size_t kMostPlans = 1024;

// Products of up to so many rows take the algorithm of the next power of two: to choose one and to load its kernel
// takes some milliseconds, for which a prompt of a new length would wait.
constexpr int64_t kMostAlike = 1024;

int64_t rows_alike(int64_t rows) {
  return rows > kMostAlike ? rows : static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(rows)));
}

uint32_t alignment_of(const void* p) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  return static_cast<uint32_t>(std::min<uintptr_t>(address & (~address + 1), 256));
}

// What a plan holds for: types, sizes, strides, alignments.
using Key = std::array<int64_t, 11>;

Key key_of(const MatrixProduct& p) {
  return {static_cast<int64_t>(p.type),
          static_cast<int64_t>(p.sums_type),
          p.rows,
          p.outputs,
          p.depth,
          p.x_stride,
          p.weights_stride,
          p.sums_stride,
          alignment_of(p.weights),
          alignment_of(p.x),
          alignment_of(p.sums)};
}

// An owned descriptor.
class Owned {
 public:
  explicit Owned(int (*destroy)(Descriptor)) : destroy_(destroy) {}
  ~Owned() {
    if (value) destroy_(value);
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  Descriptor value = nullptr;

 private:
  int (*destroy_)(Descriptor);
};

// How a product is taken, where the library knows a way.
struct Choice {
  Algorithm algorithm{};
  bool found = false;
};

// To the library, whose matrices are column-major, the product is sums' = weights x'.
struct Plan {
  explicit Plan(const Library& lt)
      : product(lt.product_destroy), weights(lt.layout_destroy), x(lt.layout_destroy), sums(lt.layout_destroy) {}
  Owned product, weights, x, sums;
  Choice choice;
};

}  // namespace

class CublasLt {
 public:
  explicit CublasLt(const Library& library) : lt_(library) { call(lt_.create(&handle_), "cublasLtCreate"); }

  bool multiply(const MatrixProduct& p, void* workspace, Cuda& cuda) {
    const Plan& plan = plan_of(p);
    if (!plan.choice.found) return false;
    const float one = 1, beta = p.accumulate ? 1 : 0;
    call(lt_.multiply(handle_, plan.product.value, &one, p.weights, plan.weights.value, p.x, plan.x.value, &beta,
                      p.sums, plan.sums.value, p.sums, plan.sums.value, &plan.choice.algorithm, workspace,
                      kCublasLtWorkspaceBytes, cuda.stream),
         "cublasLtMatmul");
    return true;
  }

 private:
  const Plan& plan_of(const MatrixProduct& p) {
    const Key key = key_of(p);
    const auto known = plans_.find(key);
    if (known != plans_.end()) return known->second;
    if (plans_.size() >= kMostPlans) plans_.clear();
    Plan& plan = plans_.try_emplace(key, lt_).first->second;
    describe(plan, p);
    const Choice shared = shared_choice(p);
    plan.choice = holds(plan, shared) ? shared : choice_of(plan, p);
    return plan;
  }

  // Of the products that differ from `p` by their rows alone, and are of as many up to a power of two.
  Choice shared_choice(MatrixProduct p) {
    p.rows = rows_alike(p.rows);
    const Key key = key_of(p);
    const auto known = choices_.find(key);
    if (known != choices_.end()) return known->second;
    if (choices_.size() >= kMostPlans) choices_.clear();
    Plan plan(lt_);
    describe(plan, p);
    return choices_[key] = choice_of(plan, p);
  }

  bool holds(const Plan& plan, const Choice& choice) {
    Heuristic result{};
    return choice.found &&
           lt_.check(handle_, plan.product.value, plan.weights.value, plan.x.value, plan.sums.value, plan.sums.value,
                     &choice.algorithm, &result) == 0 &&
           result.workspace <= kCublasLtWorkspaceBytes;
  }

  void describe(Plan& plan, const MatrixProduct& p) {
    const int transpose = 1, type = data_type(p.type);
    call(lt_.product_create(&plan.product.value, kCompute32, kReal32), "cublasLtMatmulDescCreate");
    call(lt_.product_set(plan.product.value, kTransposeA, &transpose, sizeof(transpose)),
         "cublasLtMatmulDescSetAttribute");
    const auto layout = [&](Owned& made, int of, int64_t rows, int64_t columns, int64_t stride) {
      call(lt_.layout_create(&made.value, of, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), stride),
           "cublasLtMatrixLayoutCreate");
    };
    layout(plan.weights, type, p.depth, p.outputs, p.weights_stride);
    layout(plan.x, type, p.depth, p.rows, p.x_stride);
    layout(plan.sums, data_type(p.sums_type), p.outputs, p.rows, p.sums_stride);
  }

  Choice choice_of(const Plan& plan, const MatrixProduct& p) {
    Owned preference(lt_.preference_destroy);
    call(lt_.preference_create(&preference.value), "cublasLtMatmulPreferenceCreate");
    const auto prefer = [&](int attribute, auto value) {
      call(lt_.preference_set(preference.value, attribute, &value, sizeof(value)),
           "cublasLtMatmulPreferenceSetAttribute");
    };
    prefer(kMostWorkspace, uint64_t{kCublasLtWorkspaceBytes});
    prefer(kReductions, uint32_t{kReduceInComputeType});
    prefer(kAlignmentA, alignment_of(p.weights));
    prefer(kAlignmentB, alignment_of(p.x));
    prefer(kAlignmentC, alignment_of(p.sums));
    prefer(kAlignmentD, alignment_of(p.sums));
    Heuristic best{};
    int count = 0;
    const int status = lt_.heuristic(handle_, plan.product.value, plan.weights.value, plan.x.value, plan.sums.value,
                                     plan.sums.value, preference.value, 1, &best, &count);
    return {best.algorithm, status == 0 && count > 0 && best.status == 0};
  }

  const Library& lt_;
  Handle handle_ = nullptr;
  std::map<Key, Plan> plans_;
  std::map<Key, Choice> choices_;
};

CublasLt* cublaslt(Cuda& cuda) {
  // Each device's own thread touches its entry alone. Never destroyed: the context may be gone by then.
  static std::array<CublasLt*, 32> of_device{};
  CublasLt*& entry = of_device[static_cast<size_t>(cuda.properties.index)];
  if (!entry && library()) entry = new CublasLt(*library());
  return entry;
}

bool multiply(CublasLt& cublaslt, const MatrixProduct& product, void* workspace, Cuda& cuda) {
  return cublaslt.multiply(product, workspace, cuda);
}

}  // namespace linattn::cuda
#endif
