// The queue, the tensor table and graphs with a device that counts: order, errors, frees, environments that end,
// several threads at once. Meant for ThreadSanitizer too.
#include "core/queue.h"

#include <cstdlib>
#include <cstring>
#include <functional>
#include <future>
#include <set>

#include "core/graph.h"
#include "ops/activation.h"
#include "test/check.h"

namespace linattn {
namespace {

// Its one op, activation, gives x + 1; with tanh it fails.
class CountingDevice : public Device {
 public:
  std::string name() const override { return "counting"; }
  std::string description() const override { return ""; }
  void* allocate(size_t bytes, bool zeroed, bool) override {
    live += static_cast<int64_t>(bytes);
    return zeroed ? std::calloc(1, bytes) : std::malloc(bytes);
  }
  void free(void* data, size_t bytes, bool) override {
    live -= static_cast<int64_t>(bytes);
    std::free(data);
  }
  MemoryUse memory() const override { return {}; }
  void charge(int64_t) override {}
  bool host_memory() const override { return true; }
  void after(Done done) override { done(nullptr); }
  void time_begin() override {}
  void time_end(double*) override {}
  void copy_in(void* device, const void* host, size_t bytes) override { std::memcpy(device, host, bytes); }
  void copy_out(void* host, const void* device, size_t bytes) override { std::memcpy(host, device, bytes); }
  void run(int, const void* fields) override {
    const auto& op = *static_cast<const Activation*>(fields);
    if (op.activation == ActivationKind::kTanh) throw Error("ERR_ARGUMENT", "activation: told to fail");
    *op.out.as<float>() = *op.x.as<float>() + 1;
  }
  std::atomic<int64_t> live{0};  // bytes
};

struct Lambda : Task {
  Lambda(std::function<void(Device&, TensorTable&)> function, bool every = false, bool* gone = nullptr)
      : run_(std::move(function)), always_(every), gone_(gone) {}
  ~Lambda() override {
    if (gone_) *gone_ = true;
  }
  bool always() const override { return always_; }
  void run(Device& device, TensorTable& table) override { run_(device, table); }

 private:
  std::function<void(Device&, TensorTable&)> run_;
  bool always_;
  bool* gone_;
};

struct Read {
  float value = 0;
  std::string error;
};

struct House {
  CountingDevice device;
  TensorTable table;
  Queue queue{device, table};
  std::atomic<int> environments{0};

  ~House() {
    CHECK(table.count() == 0);
    CHECK(device.live == 0);
  }
  std::shared_ptr<Environment> enter() {
    auto environment = std::make_shared<Environment>();
    environment->id = ++environments;
    return environment;
  }
};

// What one JavaScript thread does; what it still has at its end goes back.
struct Caller {
  House& house;
  std::shared_ptr<Environment> environment = house.enter();

  ~Caller() {
    const auto left = house.table.live_of(environment->id);
    house.queue.release(environment, left.data(), left.size());
    fence();
  }

  double make(bool zeroed = true) {
    TensorSpec spec;
    spec.rank = 1;
    spec.shape[0] = 1;
    return house.table.create(spec, &house.device, environment->id, zeroed, false);
  }
  double step(double x, ActivationKind kind = ActivationKind::kSilu) {
    const double record[] = {x, make(), static_cast<double>(kind), 1};
    house.queue.op(environment, 0, record, 4);
    return record[1];
  }
  void release(double id) {
    house.table.live(id, environment->id).disposed = true;
    house.queue.release(environment, &id, 1);
  }
  Read read(double id) {
    std::promise<Read> result;
    task([&](Device&, TensorTable& table) {
      Storage& storage = *table.entry(id).storage;
      Read read;
      if (storage.taint)
        read.error = storage.taint->what();
      else if (storage.data)
        read.value = *resolve(table.entry(id)).as<float>();
      result.set_value(read);
    });
    return result.get_future().get();
  }
  void task(std::function<void(Device&, TensorTable&)> function, bool always = false, bool* gone = nullptr) {
    house.queue.task(environment, std::make_unique<Lambda>(std::move(function), always, gone));
  }
  void fence() {
    std::promise<void> done;
    task([&](Device&, TensorTable&) { done.set_value(); }, true);
    done.get_future().get();
  }
};

void chains_of_many_threads_keep_their_order() {
  House house;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([&house, t] {
      Caller caller{house};
      for (int round = 0; round < 20; round++) {
        double x = caller.make();
        const int length = 50 + 7 * t + round;
        for (int i = 0; i < length; i++) {
          const double next = caller.step(x);
          caller.release(x);
          x = next;
        }
        const Read read = caller.read(x);
        CHECK_NOTE(read.error.empty() && read.value == static_cast<float>(length), std::to_string(read.value));
        caller.release(x);
      }
      caller.fence();
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(house.device.live == 0);
  CHECK(house.table.count() == 0);
  CHECK(house.queue.waiting() <= 1);  // the last fence counts until it has returned
}

void an_error_taints_what_depends_on_it_and_nothing_else() {
  House house;
  Caller caller{house};
  const double x = caller.make();
  const double failed = caller.step(x, ActivationKind::kTanh);
  const double after = caller.step(caller.step(failed), ActivationKind::kTanh);
  const double apart = caller.step(x);
  CHECK(caller.read(failed).error == "activation: told to fail");
  CHECK(caller.read(after).error == "activation: told to fail");
  CHECK(caller.read(apart).error.empty() && caller.read(apart).value == 1);
  CHECK(house.device.commands == 1);  // what reads a tainted tensor does not run
}

void an_environment_that_ended_runs_nothing_but_frees() {
  House house;
  Caller caller{house};
  Caller other{house};
  const double x = caller.make();
  caller.read(caller.step(x));
  std::promise<void> open;
  other.task([gate = open.get_future().share()](Device&, TensorTable&) { gate.wait(); });
  bool ran = false, always_ran = false, gone = false;
  const double y = caller.step(x);
  caller.task([&](Device&, TensorTable&) { ran = true; }, false, &gone);
  caller.task([&](Device&, TensorTable&) { always_ran = true; }, true);
  caller.environment->ended = true;
  for (const double id : house.table.live_of(caller.environment->id)) {
    house.queue.release(caller.environment, &id, 1);
  }
  house.queue.forget(caller.environment);
  open.set_value();
  other.fence();
  house.queue.settle();
  CHECK(!ran && gone && always_ran);
  CHECK(house.device.commands == 1);
  CHECK(house.device.live == 0 && house.table.count() == 0);
  bool refused = false;
  try {
    house.table.live(y, caller.environment->id);
  } catch (const Error& error) {
    refused = error.code == "ERR_DISPOSED";
  }
  CHECK(refused);
}

void a_graph_replays_and_gives_its_memory_back() {
  House house;
  Caller caller{house};
  const double x = caller.make();
  auto graph = std::make_shared<Graph>(caller.environment);
  const auto record = [&](double from) {
    const double fields[] = {from, caller.make(false), 0, 1};
    graph->made(fields[1], house.table.entry(fields[1]).storage);
    graph->op(0, fields, 4);
    return fields[1];
  };
  double last = record(x);
  for (int i = 0; i < 9; i++) {
    const double next = record(last);
    house.table.live(last, caller.environment->id).disposed = true;
    CHECK(graph->release(last));
    last = next;
  }
  CHECK(!graph->release(x));
  caller.task([graph](Device& device, TensorTable& table) { graph->compile(device, table); });
  for (int i = 0; i < 100; i++) caller.task([graph](Device& device, TensorTable&) { graph->replay(device); });
  CHECK(caller.read(last).value == 10);
  CHECK(house.device.commands == 1000);
  CHECK(house.device.live <= 4 + 3 * 256);  // x, and an arena that reuses what was released
  caller.release(x);                        // the graph still holds it
  caller.task([graph](Device& device, TensorTable&) { graph->replay(device); });
  CHECK(caller.read(last).value == 10);
  caller.task([graph](Device& device, TensorTable& table) { graph->destroy(device, table); }, true);
  CHECK(caller.read(last).error == "a tensor is used after its graph's dispose()");
  caller.release(last);
  caller.fence();
  CHECK(house.device.live == 0 && house.table.count() == 0);
}

void handles_know_when_they_are_stale() {
  House house;
  Caller caller{house};
  std::set<double> seen;
  double stale = 0;
  for (int i = 0; i < 1000; i++) {
    const double id = caller.make();
    CHECK(seen.insert(id).second);  // a slot comes back, its handle does not
    if (stale != 0) {
      bool refused = false;
      try {
        house.table.live(stale, caller.environment->id);
      } catch (const Error&) {
        refused = true;
      }
      CHECK(refused);
    }
    caller.release(id);
    caller.fence();
    stale = id;
  }
  const double base = caller.make();
  TensorSpec spec;
  spec.rank = 1;
  spec.shape[0] = 1;
  const double view = house.table.view(base, spec, 0, 1);
  caller.read(caller.step(base));
  caller.release(base);
  CHECK(caller.read(view).error.empty());
  CHECK(house.device.live > 0);
  bool refused = false;
  try {
    house.table.view(view, spec, 1, 1);
  } catch (const Error& error) {
    refused = error.code == "ERR_SHAPE";
  }
  CHECK(refused);
}

}  // namespace
}  // namespace linattn

int main() {
  using namespace linattn;
  chains_of_many_threads_keep_their_order();
  an_error_taints_what_depends_on_it_and_nothing_else();
  an_environment_that_ended_runs_nothing_but_frees();
  a_graph_replays_and_gives_its_memory_back();
  handles_know_when_they_are_stale();
  return report("queue");
}
