// What the binding asks of a queue besides ops: read, write, wait, load from a file, graphs.
#pragma once
#include <memory>
#include <utility>

#include "binding/completions.h"
#include "core/graph.h"
#include "core/queue.h"

namespace linattn::binding {

// An open file, read with pread on the queue's thread: a file cut short meanwhile is an error, never a signal.
class File {
 public:
  explicit File(const std::string& path);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }
  // Reads exactly `bytes`; throws ERR_FILE.
  void read(void* to, uint64_t offset, size_t bytes) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

std::unique_ptr<Task> write_task(double id, size_t byte_offset, const void* data, size_t bytes);
// The same from memory that stays as it is until `request` completes. `pinned`: by the device of the tensor.
std::unique_ptr<Task> held_write_task(double id, size_t byte_offset, const void* data, size_t bytes, bool pinned,
                                      double request, std::shared_ptr<Environment> environment,
                                      std::shared_ptr<Completions> completions);
// Completes `request` with the tensor's data, packed, or without data when `with_data` is false (a wait).
std::unique_ptr<Task> read_task(double id, double request, bool with_data, std::shared_ptr<Completions> completions);
// A copy by way of the host: the first for the queue of `from`, the second for that of `to`, which has as many bytes.
std::pair<std::unique_ptr<Task>, std::unique_ptr<Task>> copy_tasks(double from, double to);
std::unique_ptr<Task> fence_task(double request, std::shared_ptr<Completions> completions);
// An interval of the device's own time; the end completes `request` with its milliseconds, one double.
std::unique_ptr<Task> time_begin_task();
std::unique_ptr<Task> time_end_task(double request, std::shared_ptr<Completions> completions);
std::unique_ptr<Task> file_task(double id, std::shared_ptr<File> file, uint64_t offset,
                                std::shared_ptr<Environment> environment);
std::unique_ptr<Task> compile_task(std::shared_ptr<Graph> graph);
std::unique_ptr<Task> replay_task(std::shared_ptr<Graph> graph);
std::unique_ptr<Task> destroy_task(std::shared_ptr<Graph> graph);
std::unique_ptr<Task> threads_task(int threads);

}  // namespace linattn::binding
