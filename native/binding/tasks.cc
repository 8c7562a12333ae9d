#include "binding/tasks.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <future>

#include "cpu/cpu-device.h"

namespace linattn::binding {
namespace {

constexpr size_t kFilePiece = size_t{8} << 20;

std::shared_ptr<const Error> as_error(const Error& error) { return std::make_shared<Error>(error.code, error.what()); }

// Completes a request once everything before it has happened on the device.
void deliver(Device& device, const std::shared_ptr<Completions>& completions, Completion completion) {
  if (completion.error) {
    completions->finish(std::move(completion));
    return;
  }
  auto held = std::make_shared<Completion>(std::move(completion));  // a std::function must be copyable
  device.after([completions, held](std::shared_ptr<const Error> error) {
    if (error) held->error = std::move(error);
    completions->finish(std::move(*held));
  });
}

// The bytes of a bound tensor without gaps between its rows, filled once a later after() is done.
std::unique_ptr<char[]> packed(Device& device, const TensorEntry& entry) {
  const Tensor tensor = resolve(entry);
  auto data = std::make_unique_for_overwrite<char[]>(entry.bytes());
  const size_t rows = tensor.contiguous() ? 1 : static_cast<size_t>(tensor.shape[0]);
  const size_t row_bytes = entry.bytes() / std::max<size_t>(rows, 1);
  const size_t stride = static_cast<size_t>(tensor.stride0) * dtype_bytes(tensor.dtype);
  for (size_t row = 0; row < rows; row++) {
    device.copy_out(data.get() + row * row_bytes, static_cast<char*>(tensor.data) + row * stride, row_bytes);
  }
  return data;
}

struct Write final : Task {
  double id = 0;
  size_t offset = 0, bytes = 0;
  std::unique_ptr<char[]> data;
  void run(Device& device, TensorTable& table) override {
    TensorEntry& entry = table.entry(id);
    try {
      bind(entry, device);
      device.copy_in(static_cast<char*>(resolve(entry).data) + offset, data.get(), bytes);
      if (bytes == entry.storage->bytes) entry.storage->taint.reset();
    } catch (const Error& error) {
      entry.storage->taint = as_error(error);
    }
  }
};

struct HeldWrite final : Task {
  double id = 0, request = 0;
  size_t offset = 0, bytes = 0;
  const void* data = nullptr;
  bool pinned = false;
  std::shared_ptr<Environment> environment;
  std::shared_ptr<Completions> completions;
  void run(Device& device, TensorTable& table) override {
    TensorEntry& entry = table.entry(id);
    const auto finish = [completions = completions, request = request](std::shared_ptr<const Error> error) {
      Completion completion;
      completion.request = request;
      completion.error = std::move(error);
      completions->finish(std::move(completion));
    };
    // As one command: an environment that ends waits for it, and for what is pinned, as `data` ends with it.
    device.queue->once(*environment, [&] {
      try {
        bind(entry, device);
        char* to = static_cast<char*>(resolve(entry).data) + offset;
        if (pinned) {
          device.copy_in_pinned(to, data, bytes, finish);
        } else {
          device.copy_in(to, data, bytes);
          finish(nullptr);
        }
      } catch (const Error& error) {
        if (!entry.storage->transactional) entry.storage->taint = as_error(error);
        finish(as_error(error));
      }
    });
  }
};

struct Read final : Task {
  double id = 0, request = 0;
  bool with_data = false;
  std::shared_ptr<Completions> completions;
  void run(Device& device, TensorTable& table) override {
    Completion completion;
    completion.request = request;
    TensorEntry& entry = table.entry(id);
    completion.error = entry.storage->taint;
    if (!completion.error && with_data) {
      try {
        bind(entry, device);
        completion.bytes = entry.bytes();
        completion.data = packed(device, entry);
      } catch (const Error& error) {
        completion.error = as_error(error);
      } catch (const std::bad_alloc&) {
        completion.error = std::make_shared<Error>("ERR_OUT_OF_MEMORY", "read: no host memory left");
      }
    }
    deliver(device, completions, std::move(completion));
  }
};

// The bytes of a tensor on their way from one queue to another, or why there are none.
struct Parcel {
  std::unique_ptr<char[]> data;
  std::promise<std::shared_ptr<const Error>> sent;
  std::future<std::shared_ptr<const Error>> arrival = sent.get_future();
};

struct Send final : Task {
  double id = 0;
  std::shared_ptr<Parcel> parcel;
  bool ran = false;
  // Its environment has ended: nobody waits for longer than this.
  ~Send() override {
    if (!ran) parcel->sent.set_value(std::make_shared<Error>("ERR_DISPOSED", "to: the thread has ended"));
  }
  void run(Device& device, TensorTable& table) override {
    ran = true;
    TensorEntry& entry = table.entry(id);
    std::shared_ptr<const Error> failure = entry.storage->taint;
    try {
      if (!failure) {
        bind(entry, device);
        parcel->data = packed(device, entry);
      }
    } catch (const Error& error) {
      failure = as_error(error);
    } catch (const std::bad_alloc&) {
      failure = std::make_shared<Error>("ERR_OUT_OF_MEMORY", "to: no host memory left");
    }
    if (failure) {
      parcel->sent.set_value(failure);
      return;
    }
    device.after([parcel = parcel](std::shared_ptr<const Error> error) { parcel->sent.set_value(std::move(error)); });
  }
};

// Holds up its queue until the bytes are there. Queues cannot wait for each other in a circle: a Receive waits for a
// Send that was enqueued before it, and a Send for nothing.
struct Receive final : Task {
  double id = 0;
  std::shared_ptr<Parcel> parcel;
  void run(Device& device, TensorTable& table) override {
    TensorEntry& entry = table.entry(id);
    entry.storage->taint = parcel->arrival.get();
    if (entry.storage->taint) return;
    try {
      bind(entry, device);
      device.copy_in(resolve(entry).data, parcel->data.get(), entry.bytes());
    } catch (const Error& error) {
      entry.storage->taint = as_error(error);
    }
  }
};

struct Fence final : Task {
  double request = 0;
  std::shared_ptr<Completions> completions;
  void run(Device& device, TensorTable&) override {
    Completion completion;
    completion.request = request;
    deliver(device, completions, std::move(completion));
  }
};

struct TimeBegin final : Task {
  void run(Device& device, TensorTable&) override {
    try {
      device.time_begin();
    } catch (const Error&) {
      // The end says what is wrong with the device.
    }
  }
};

struct TimeEnd final : Task {
  double request = 0;
  std::shared_ptr<Completions> completions;
  void run(Device& device, TensorTable&) override {
    Completion completion;
    completion.request = request;
    completion.bytes = sizeof(double);
    completion.data = std::make_unique<char[]>(sizeof(double));
    try {
      device.time_end(reinterpret_cast<double*>(completion.data.get()));
    } catch (const Error& error) {
      completion.error = as_error(error);
    }
    deliver(device, completions, std::move(completion));
  }
};

struct FromFile final : Task {
  double id = 0;
  std::shared_ptr<File> file;
  uint64_t offset = 0;
  std::shared_ptr<Environment> environment;
  void run(Device& device, TensorTable& table) override {
    TensorEntry& entry = table.entry(id);
    try {
      bind(entry, device);
      auto* to = static_cast<char*>(resolve(entry).data);
      const size_t bytes = entry.bytes();
      std::unique_ptr<char[]> piece;
      if (!device.host_memory()) piece = std::make_unique_for_overwrite<char[]>(std::min(kFilePiece, bytes));
      for (size_t at = 0; at < bytes && !environment->ended.load(std::memory_order_acquire); at += kFilePiece) {
        const size_t count = std::min(kFilePiece, bytes - at);
        file->read(piece ? piece.get() : to + at, offset + at, count);
        if (piece) device.copy_in(to + at, piece.get(), count);
      }
    } catch (const std::bad_alloc&) {
      entry.storage->taint = std::make_shared<Error>("ERR_OUT_OF_MEMORY", file->path() + ": no host memory left");
    } catch (const Error& error) {
      entry.storage->taint = as_error(error);
    }
  }
};

struct GraphTask final : Task {
  enum class What { kCompile, kReplay, kDestroy } what = What::kCompile;
  std::shared_ptr<Graph> graph;
  bool always() const override { return what != What::kReplay; }
  void run(Device& device, TensorTable& table) override {
    if (what == What::kCompile) {
      try {
        graph->compile(device, table);
      } catch (const Error&) {
        // No arena: each tensor asks for memory at its first use, and the failure shows there by name.
      }
    }
    if (what == What::kReplay) graph->replay(device);
    if (what == What::kDestroy) graph->destroy(device, table);
  }
};

struct Threads final : Task {
  int threads = 1;
  void run(Device& device, TensorTable&) override { static_cast<cpu::CpuDevice&>(device).set_threads(threads); }
};

std::unique_ptr<Task> graph_task(std::shared_ptr<Graph> graph, GraphTask::What what) {
  auto task = std::make_unique<GraphTask>();
  task->graph = std::move(graph);
  task->what = what;
  return task;
}

}  // namespace

File::File(const std::string& path) : path_(path) {
  descriptor_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat info{};
  if (descriptor_ < 0 || fstat(descriptor_, &info) != 0) {
    const std::string reason = std::strerror(errno);
    if (descriptor_ >= 0) close(descriptor_);
    throw Error("ERR_FILE", path + ": " + reason);
  }
  size_ = static_cast<uint64_t>(info.st_size);
}

File::~File() { close(descriptor_); }

void File::read(void* to, uint64_t offset, size_t bytes) const {
  for (size_t done = 0; done < bytes;) {
    const ssize_t got =
        pread(descriptor_, static_cast<char*>(to) + done, bytes - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw Error("ERR_FILE", path_ + ": " + std::strerror(errno));
    if (got == 0) {
      throw Error("ERR_FILE", path_ + ": ends at byte " + std::to_string(offset + done) + ", expected " +
                                  std::to_string(offset + bytes));
    }
    done += static_cast<size_t>(got);
  }
}

std::unique_ptr<Task> write_task(double id, size_t byte_offset, const void* data, size_t bytes) {
  auto task = std::make_unique<Write>();
  task->id = id;
  task->offset = byte_offset;
  task->bytes = bytes;
  task->data = std::make_unique_for_overwrite<char[]>(bytes);
  if (bytes > 0) std::memcpy(task->data.get(), data, bytes);
  return task;
}

std::unique_ptr<Task> held_write_task(double id, size_t byte_offset, const void* data, size_t bytes, bool pinned,
                                      double request, std::shared_ptr<Environment> environment,
                                      std::shared_ptr<Completions> completions) {
  auto task = std::make_unique<HeldWrite>();
  task->id = id;
  task->offset = byte_offset;
  task->bytes = bytes;
  task->data = data;
  task->pinned = pinned;
  task->request = request;
  task->environment = std::move(environment);
  task->completions = std::move(completions);
  return task;
}

std::unique_ptr<Task> read_task(double id, double request, bool with_data, std::shared_ptr<Completions> completions) {
  auto task = std::make_unique<Read>();
  task->id = id;
  task->request = request;
  task->with_data = with_data;
  task->completions = std::move(completions);
  return task;
}

std::pair<std::unique_ptr<Task>, std::unique_ptr<Task>> copy_tasks(double from, double to) {
  auto parcel = std::make_shared<Parcel>();
  auto send = std::make_unique<Send>();
  send->id = from;
  send->parcel = parcel;
  auto receive = std::make_unique<Receive>();
  receive->id = to;
  receive->parcel = std::move(parcel);
  return {std::move(send), std::move(receive)};
}

std::unique_ptr<Task> fence_task(double request, std::shared_ptr<Completions> completions) {
  auto task = std::make_unique<Fence>();
  task->request = request;
  task->completions = std::move(completions);
  return task;
}

std::unique_ptr<Task> time_begin_task() { return std::make_unique<TimeBegin>(); }

std::unique_ptr<Task> time_end_task(double request, std::shared_ptr<Completions> completions) {
  auto task = std::make_unique<TimeEnd>();
  task->request = request;
  task->completions = std::move(completions);
  return task;
}

std::unique_ptr<Task> file_task(double id, std::shared_ptr<File> file, uint64_t offset,
                                std::shared_ptr<Environment> environment) {
  auto task = std::make_unique<FromFile>();
  task->id = id;
  task->file = std::move(file);
  task->offset = offset;
  task->environment = std::move(environment);
  return task;
}

std::unique_ptr<Task> compile_task(std::shared_ptr<Graph> graph) {
  return graph_task(std::move(graph), GraphTask::What::kCompile);
}

std::unique_ptr<Task> replay_task(std::shared_ptr<Graph> graph) {
  return graph_task(std::move(graph), GraphTask::What::kReplay);
}

std::unique_ptr<Task> destroy_task(std::shared_ptr<Graph> graph) {
  return graph_task(std::move(graph), GraphTask::What::kDestroy);
}

std::unique_ptr<Task> threads_task(int threads) {
  auto task = std::make_unique<Threads>();
  task->threads = threads;
  return task;
}

}  // namespace linattn::binding
