#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <utility>

#include "cuda/code-capability.h"
#include "cuda/cuda-device.h"
#include "cuda/error.h"
#include "cuda/op-functions.h"

namespace linattn::cuda {
namespace {

constexpr size_t kLandingBytes = size_t{256} << 10;
constexpr size_t kLandings = 32;
constexpr size_t kWordCopyBytes = size_t{16} << 10;

bool flag(const char* name) {
  const char* text = std::getenv(name);
  return text && *text == '1';
}

// What `error` says, with who it happened to in front.
Error named(const char* op, const Error& error) {
  const std::string what = error.what();
  const std::string prefix = "cuda: ";
  return {error.code, std::string(op) + ": " + (what.rfind(prefix, 0) == 0 ? what.substr(prefix.size()) : what)};
}

// The end of a command, however it ends.
class CommandEnd {
 public:
  explicit CommandEnd(Cuda& cuda) : cuda_(cuda) {}
  ~CommandEnd() { cuda_.end_command(); }
  CommandEnd(const CommandEnd&) = delete;
  CommandEnd& operator=(const CommandEnd&) = delete;

 private:
  Cuda& cuda_;
};

}  // namespace

int device_count(std::string& reason) {
  int count = 0;
  const cudaError_t result = cudaGetDeviceCount(&count);
  if (result == cudaSuccess) {
    if (count == 0) reason = "the NVIDIA driver sees no GPU";
    return count;
  }
  cudaGetLastError();
  reason = std::string(cudaGetErrorName(result)) + ", " + cudaGetErrorString(result);
  return 0;
}

CudaDevice::CudaDevice(int index) : index_(index), pins_(index) {
  cudaDeviceProp found{};
  check(cudaGetDeviceProperties(&found, index));
  properties_.index = index;
  properties_.capability = found.major * 10 + found.minor;
  properties_.multiprocessors = found.multiProcessorCount;
  properties_.shared_memory = static_cast<int>(found.sharedMemPerBlockOptin);
  properties_.l2_bytes = found.l2CacheSize;
  total_ = found.totalGlobalMem;
  description_ = std::string(found.name) + ", compute capability " + std::to_string(found.major) + "." +
                 std::to_string(found.minor) + ", " + std::to_string(found.multiProcessorCount) + " multiprocessors";
  synchronous_ = flag("LINATTN_SYNC");
  poison_ = flag("LINATTN_POISON");
}

CudaDevice::~CudaDevice() {
  if (!cuda_) return;
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  completer_.join();
  cudaSetDevice(index_);
  cudaDeviceSynchronize();
  for (const Mark& mark : all_marks_) {
    cudaEventDestroy(mark.event);
    cudaFreeHost(mark.reports);
  }
  for (void* landing : all_landings_) cudaFreeHost(landing);
  cudaFree(cuda_->faults);
  cudaFree(cuda_->tickets);
  cudaStreamDestroy(cuda_->stream);
}

void CudaDevice::enter() {
  if (cuda_) return;
  check(cudaSetDevice(index_));
  Properties usable = properties_;
  usable.capability = std::min(usable.capability, code_capability());
  auto cuda = std::make_unique<Cuda>(usable);
  check(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking));
  const size_t bytes = sizeof(Fault) * static_cast<size_t>(kOpCount);
  check(cudaMalloc(&cuda->faults, bytes));
  check(cudaMemsetAsync(cuda->faults, 0, bytes, cuda->stream));
  constexpr size_t kTicketBytes = sizeof *cuda->tickets * kTicketCounters * kTicketWords;
  check(cudaMalloc(&cuda->tickets, kTicketBytes));
  check(cudaMemsetAsync(cuda->tickets, 0, kTicketBytes, cuda->stream));
  staging_ = std::make_unique<Staging>();
  cuda_ = std::move(cuda);
  completer_ = std::thread([this] { complete(); });
}

template <class Body>
void CudaDevice::guarded(Body body) {
  {
    std::lock_guard lock(mutex_);
    if (lost_) throw Error(lost_->code, lost_->what());
  }
  enter();
  try {
    body();
  } catch (const Error& error) {
    if (error.code == "ERR_DEVICE_LOST") {
      std::lock_guard lock(mutex_);
      if (!lost_) lost_ = std::make_shared<const Error>(error.code, error.what());
    }
    throw;
  }
}

MemoryUse CudaDevice::memory() const { return {allocator_.used(), allocator_.reserved(), total_}; }

void* CudaDevice::allocate(size_t bytes, bool zeroed, bool counted) {
  void* data = nullptr;
  guarded([&] {
    data = allocator_.allocate(bytes, counted);
    if (zeroed || poison_) check(cudaMemsetAsync(data, zeroed ? 0 : 0xff, bytes, cuda_->stream));
  });
  return data;
}

void CudaDevice::free(void* data, size_t bytes, bool counted) { allocator_.free(data, bytes, counted); }

void CudaDevice::copy_in(void* to, const void* host, size_t bytes) {
  guarded([&] {
    for (size_t at = 0; at < bytes; at += Staging::kBlockBytes) {
      const size_t count = std::min(bytes - at, Staging::kBlockBytes);
      void* staged = staging_->take(count, cuda_->stream);
      std::memcpy(staged, static_cast<const char*>(host) + at, count);
      check(cudaMemcpyAsync(static_cast<char*>(to) + at, staged, count, cudaMemcpyHostToDevice, cuda_->stream));
    }
  });
}

void CudaDevice::pin(const void* host, size_t bytes) {
  guarded([&] { pins_.add(host, bytes); });
}

// Without tell(): what kernels before it found is for who reads what they made.
void CudaDevice::copy_in_pinned(void* to, const void* host, size_t bytes, Done done) {
  guarded([&] {
    const Mark mark = take_mark();  // before anything is enqueued: it may find no memory
    try {
      if (!pins_.copy(to, host, bytes, cuda_->stream)) copy_in(to, host, bytes);
      check(cudaEventRecord(mark.event, cuda_->stream));
    } catch (...) {
      std::lock_guard lock(mutex_);
      marks_.push_back(mark);
      throw;
    }
    {
      std::lock_guard lock(mutex_);
      waiting_.push_back({mark, {}, {}, std::move(done)});
    }
    wake_.notify_one();
  });
}

void CudaDevice::copy_out(void* host, const void* from, size_t bytes) {
  if (bytes == 0) return;
  try {
    guarded([&] {
      void* staged = bytes <= kLandingBytes ? take_landing() : nullptr;
      const bool words = bytes <= kWordCopyBytes && (bytes | reinterpret_cast<uintptr_t>(from)) % sizeof(int32_t) == 0;
      if (staged) landings_.push_back({host, staged, bytes});
      if (staged && words && word_copy_.bytes == 0) {
        word_copy_ = {staged, from, bytes};
      } else {
        check(cudaMemcpyAsync(staged ? staged : host, from, bytes, cudaMemcpyDeviceToHost, cuda_->stream));
      }
      if (!staged) check(cudaStreamSynchronize(cuda_->stream));
    });
  } catch (const Error&) {
    drop_copies();
    throw;
  }
}

// Those of a read that failed: nobody calls after() for it, and neither `host` nor `from` need to be there any longer.
void CudaDevice::drop_copies() {
  word_copy_ = {};
  for (const Interval& interval : intervals_) {
    cudaEventDestroy(interval.begin);
    cudaEventDestroy(interval.end);
  }
  intervals_.clear();
  std::lock_guard lock(mutex_);
  for (const Landing& landing : landings_) free_landings_.push_back(landing.staged);
  landings_.clear();
}

// Pinned memory for one small copy out, or null when all of it is on its way.
void* CudaDevice::take_landing() {
  {
    std::lock_guard lock(mutex_);
    if (!free_landings_.empty()) {
      void* taken = free_landings_.back();
      free_landings_.pop_back();
      return taken;
    }
  }
  if (all_landings_.size() == kLandings) return nullptr;
  void* made = nullptr;
  check(cudaHostAlloc(&made, kLandingBytes, cudaHostAllocDefault));
  all_landings_.push_back(made);
  return made;
}

void CudaDevice::after(Done done) {
  try {
    guarded([&] {
      const Mark mark = take_mark();
      tell(*cuda_, mark.reports, std::exchange(word_copy_, {}));
      check(cudaEventRecord(mark.event, cuda_->stream));
      {
        std::lock_guard lock(mutex_);
        waiting_.push_back({mark, std::move(landings_), std::move(intervals_), std::move(done)});
      }
      landings_.clear();
      intervals_.clear();
      wake_.notify_one();
    });
  } catch (const Error& error) {
    drop_copies();
    if (done) done(std::make_shared<const Error>(error.code, error.what()));
  }
}

CudaDevice::Mark CudaDevice::take_mark() {
  {
    std::lock_guard lock(mutex_);
    if (!marks_.empty()) {
      const Mark taken = marks_.back();
      marks_.pop_back();
      return taken;
    }
  }
  Mark made;
  const size_t bytes = sizeof(Fault) * static_cast<size_t>(kOpCount);
  void* reports = nullptr;
  check(cudaHostAlloc(&reports, bytes, cudaHostAllocDefault));
  std::memset(reports, 0, bytes);
  made.reports = static_cast<Fault*>(reports);
  check(cudaEventCreateWithFlags(&made.event, cudaEventDisableTiming));
  all_marks_.push_back(made);
  return made;
}

// The completer thread: what waits comes back in order.
void CudaDevice::complete() {
  cudaSetDevice(index_);
  for (;;) {
    Waiting next{};
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      next = std::move(waiting_.front());
      waiting_.pop_front();
    }
    std::shared_ptr<const Error> error;
    try {
      check(cudaEventSynchronize(next.mark.event));
      error = error_of(next.mark.reports);
    } catch (const Error& failure) {
      error = std::make_shared<const Error>(failure.code, failure.what());
    }
    for (const Interval& interval : next.intervals) {
      float milliseconds = 0;
      cudaEventElapsedTime(&milliseconds, interval.begin, interval.end);
      *interval.milliseconds = static_cast<double>(milliseconds);
      cudaEventDestroy(interval.begin);
      cudaEventDestroy(interval.end);
    }
    for (const Landing& landing : next.landings) std::memcpy(landing.host, landing.staged, landing.bytes);
    {
      std::lock_guard lock(mutex_);
      marks_.push_back(next.mark);
      for (const Landing& landing : next.landings) free_landings_.push_back(landing.staged);
      if (error && error->code == "ERR_DEVICE_LOST" && !lost_) lost_ = error;
    }
    next.done(std::move(error));
  }
}

void CudaDevice::time_begin() {
  guarded([&] {
    if (!began_) check(cudaEventCreate(&began_));
    check(cudaEventRecord(began_, cuda_->stream));
  });
}

void CudaDevice::time_end(double* milliseconds) {
  guarded([&] {
    if (!began_) throw Error("ERR_ARGUMENT", "time: ends before it began");
    cudaEvent_t end = nullptr;
    check(cudaEventCreate(&end));
    check(cudaEventRecord(end, cuda_->stream));
    intervals_.push_back({began_, end, milliseconds});
    began_ = nullptr;
  });
}

void CudaDevice::run(int op, const void* fields) {
  if (recording_) {
    recorded_.push_back({op, op_copies()[op](fields)});
    return;
  }
  guarded([&] {
    run_now(op, fields);
    if (!synchronous_) return;
    const Mark mark = take_mark();
    tell(*cuda_, mark.reports, {});
    check(cudaStreamSynchronize(cuda_->stream));
    const auto error = error_of(mark.reports);
    {
      std::lock_guard lock(mutex_);
      marks_.push_back(mark);
    }
    if (error) throw Error(error->code, error->what());
  });
}

void CudaDevice::run_now(int op, const void* fields) {
  const CommandEnd end(*cuda_);
  cuda_->op = op;
  try {
    op_functions()[op](fields, *cuda_);
    if (synchronous_ && !cuda_->recording) check(cudaStreamSynchronize(cuda_->stream));
  } catch (const Error& error) {
    throw named(op_name(op), error);
  }
}

void CudaDevice::record_begin() {
  recorded_.clear();
  recording_ = true;
}

void* CudaDevice::record_end() {
  recording_ = false;
  const RecordedOps ops = std::exchange(recorded_, {});
  cudaGraph_t recorded = nullptr;
  guarded([&] {
    check(cudaStreamBeginCapture(cuda_->stream, cudaStreamCaptureModeThreadLocal));
    cuda_->recording = true;
    std::exception_ptr failure;
    try {
      for (size_t at = 0; at < ops.size();) {
        const CommandEnd end(*cuda_);
        const size_t fused = run_fused(ops, at, *cuda_);
        if (fused == 0) run_now(ops[at].op, ops[at].fields.get());
        at += std::max<size_t>(fused, 1);
      }
    } catch (...) {
      failure = std::current_exception();
    }
    cuda_->recording = false;
    const cudaError_t ended = cudaStreamEndCapture(cuda_->stream, &recorded);
    if (failure) {
      if (recorded) cudaGraphDestroy(recorded);
      std::rethrow_exception(failure);
    }
    check(ended);
  });
  cudaGraphExec_t graph = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&graph, recorded, 0);
  cudaGraphDestroy(recorded);
  check(made);
  return graph;
}

void CudaDevice::launch(void* graph) {
  guarded([&] { check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), cuda_->stream)); });
}

void CudaDevice::destroy(void* graph) { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)); }

}  // namespace linattn::cuda
