// One GPU: its stream, memory, graphs, and the thread that tells when enqueued work has happened. Opened cheaply; the
// CUDA context comes with the first command. Errors are thrown; plugin.cu turns them into statuses.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/device.h"
#include "cuda/allocator.h"
#include "cuda/cuda.h"
#include "cuda/findings.h"
#include "cuda/fusions.h"
#include "cuda/pins.h"
#include "cuda/staging.h"

namespace linattn::cuda {

class CudaDevice {
 public:
  using Done = std::function<void(std::shared_ptr<const Error>)>;
  explicit CudaDevice(int index);
  ~CudaDevice();

  const std::string& description() const { return description_; }
  MemoryUse memory() const;
  void charge(int64_t bytes) { allocator_.charge(bytes); }
  void unpin(const void* host) { pins_.remove(host); }  // any thread

  // Queue thread.
  void* allocate(size_t bytes, bool zeroed, bool counted);
  void free(void* data, size_t bytes, bool counted);
  void copy_in(void* to, const void* host, size_t bytes);
  void copy_out(void* host, const void* from, size_t bytes);
  void pin(const void* host, size_t bytes);
  // From memory that is not pinned any more as from pinned memory.
  void copy_in_pinned(void* to, const void* host, size_t bytes, Done done);
  void after(Done done);
  void time_begin();
  void time_end(double* milliseconds);
  void run(int op, const void* fields);
  void record_begin();
  void* record_end();
  void launch(void* graph);
  void destroy(void* graph);

 private:
  // A copy that waits in pinned memory until the device has made it.
  struct Landing {
    void* host;
    void* staged;
    size_t bytes;
  };
  // Two events of this interval alone.
  struct Interval {
    cudaEvent_t begin, end;
    double* milliseconds;
  };
  // What the end of enqueued work is seen by.
  struct Mark {
    cudaEvent_t event = nullptr;
    Fault* reports = nullptr;  // one an op, in host memory that the device sees
  };
  struct Waiting {
    Mark mark;
    std::vector<Landing> landings;
    std::vector<Interval> intervals;
    Done done;
  };

  void enter();  // makes the context at the first call
  // Runs `body`, and once the device is lost throws ERR_DEVICE_LOST without running it.
  template <class Body>
  void guarded(Body body);
  void run_now(int op, const void* fields);
  void* take_landing();
  Mark take_mark();
  void drop_copies();
  void complete();

  const int index_;
  std::string description_;
  size_t total_ = 0;
  Properties properties_;
  bool synchronous_ = false, poison_ = false;
  std::unique_ptr<Cuda> cuda_;
  Allocator allocator_;
  std::unique_ptr<Staging> staging_;
  Pins pins_;
  std::vector<Landing> landings_;    // of the next after()
  std::vector<Interval> intervals_;  // of the next after()
  WordCopy word_copy_;               // of the next after()
  cudaEvent_t began_ = nullptr;
  bool recording_ = false;
  RecordedOps recorded_;
  std::vector<void*> all_landings_;
  std::vector<Mark> all_marks_;

  std::thread completer_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Waiting> waiting_;  // this and all below: guarded by mutex_
  std::vector<Mark> marks_;      // free ones
  std::vector<void*> free_landings_;
  bool stop_ = false;
  std::shared_ptr<const Error> lost_;
};

int device_count(std::string& reason);

}  // namespace linattn::cuda
